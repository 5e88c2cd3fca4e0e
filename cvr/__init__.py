"""What a trained encoder is worth: one card of numbers from its features."""
