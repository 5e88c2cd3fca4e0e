"""Computations on tensors and numbers that know nothing of the task."""
