"""Checks of a corpus before a model is trained on it.

An error makes an evaluation invalid or training hopeless, a warning needs a decision, the rest is
information.
"""
