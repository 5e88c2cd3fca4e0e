"""What a step costs; programs to be run with python -m benchmarks.NAME."""
