"""From items to batches: order, captions of an epoch, negative groups, loading, pixel cache."""
