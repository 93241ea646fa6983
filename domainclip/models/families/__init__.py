"""Checkpoint families, one file each, named after transformers' model type: only what differs."""
