"""Durations such as 3h50m."""

from __future__ import annotations

import re

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def seconds(text: str) -> int:
    """`3h50m`, `90m`, `1d12h` or `45s` in seconds.

    Raises: ValueError for anything else.
    """
    parts = re.findall(r"(\d+)([dhms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f'"{text}" is not a duration: write it as 3h50m, 90m or 1d12h')
    return sum(int(number) * _UNITS[unit] for number, unit in parts)
