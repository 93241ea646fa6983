"""The one error of every decoder."""

from __future__ import annotations
