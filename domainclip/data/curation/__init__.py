"""Which pairs to train on, one way a file."""
