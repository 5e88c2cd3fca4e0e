"""--mode=search: nearest images by bits."""
