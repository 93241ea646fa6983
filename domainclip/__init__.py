"""Adapt CLIP models to a domain, and prove what that gained and what it cost."""

__version__ = "0.1.0"
