"""Stands in for the agent in the tests of `datatailr up`."""
