"""Makes the parts of the documentation that must not be written twice: commands, wire, tables, words."""
