"""Numerical kernels of the losses: row blocks, rings over processes, symmetric sums."""
