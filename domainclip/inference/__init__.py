"""Use an adapted model: encode images and texts, compare them, classify."""
