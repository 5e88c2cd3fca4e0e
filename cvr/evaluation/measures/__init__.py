"""What suites compute from arrays: Lipschitz bounds, accuracy of fewer bits."""
