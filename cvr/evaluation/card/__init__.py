"""The evaluation card: its files, page, plots, and comparisons."""
