"""Cards, splits, decoding, order and checks: what lies between a file on disk and a batch."""
