"""What is computed of tensors and numbers, whatever it means."""
