"""The 15 corruptions of ImageNet-C, for batches."""
