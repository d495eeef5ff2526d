"""The two programs: `dt` operates jobs, `datatailr` installs and runs the platform itself.

Importing their entry modules loads neither gRPC nor rich: `--help` answers at once, and commands
import what they need when they run.
"""
