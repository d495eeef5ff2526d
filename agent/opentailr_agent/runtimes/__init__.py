"""Runtimes: what starts, watches and ends attempts on a node."""
