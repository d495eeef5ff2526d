"""Deterministic simulation of a control plane and its agents; see docs/design/simulation.md."""
