"""Random and exhaustive histories of both pure cores, and the report of the steps that they reached."""
