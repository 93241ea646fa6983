"""Images from bytes to RGB, and checks of them: decoding, FITS, digests, near-duplicates."""
