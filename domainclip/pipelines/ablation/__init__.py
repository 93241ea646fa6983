"""The command `ablate`: variants of one recipe, each with several seeds, in one table."""
