"""What --mode=evaluate measures, one module for each suite."""
