"""Stands in for the control plane in the tests of `datatailr up`."""
