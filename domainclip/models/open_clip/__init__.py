"""Checkpoints in the format of open_clip: config, weights, tokenizer and preprocessing."""
