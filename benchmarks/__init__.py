"""Benchmarks. Each prints its figure, a limit measured in the same run, and the ratio of the two.

Machines are shared and noisy, so only ratios are compared with targets; none of this is a test.
"""
