"""Recognise handwritten digits: a small but real machine-learning workflow."""
