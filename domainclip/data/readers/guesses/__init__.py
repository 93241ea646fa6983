"""Guesses of a card for a source that has none: columns, classes, groups and captions, each with a reason.

Reasons name columns and counts and never a value of a cell, which may identify a person.
"""
