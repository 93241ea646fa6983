"""Probes, one per file: each scores every item, and aggregates the scores into metrics."""
