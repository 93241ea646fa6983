"""Building blocks that probes share: scores, ranks, labels, galleries, and constructors of metrics."""
