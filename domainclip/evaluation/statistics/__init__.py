"""Figures with intervals, from per-item scores: how sure we may be, and whether two models differ.

An aggregate takes scores (n, …) and weights (r, n), how often each item was drawn, and gives r values, NaN
where the figure is undefined. Weights instead of copied rows keep the whole bootstrap vectorised.
"""
