"""The pure core: states, commands, rules. Nothing here waits, reads a clock or draws a random number."""
