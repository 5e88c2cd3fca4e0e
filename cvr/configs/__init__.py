"""What may be asked for: settings, methods, presets. No TensorFlow."""
