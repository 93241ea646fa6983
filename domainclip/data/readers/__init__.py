"""Readers of corpora, one a file; what they share is in `domainclip.data`."""
