"""Builds environments for user code from recipes."""
