"""Compressive visual representations: everything behind the front."""
