"""The training loop: steps, stages, caches, validation, weight interpolation."""
