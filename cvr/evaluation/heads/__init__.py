"""Classifiers: on frozen features, and whole networks on labels."""
