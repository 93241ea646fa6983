"""Measure models on the same items: encoding, probes, metrics, statistics, verdicts."""
