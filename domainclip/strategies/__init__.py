"""Which weights learn, one strategy a file."""
