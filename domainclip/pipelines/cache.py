"""`data cache`: what runs keep on disk, listed and removed."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from domainclip import disk_cache
from domainclip.errors import RecipeError, did_you_mean

_STILL = 3600.0  # seconds: what a run writes is touched more often
_HOURS = {"h": 1, "d": 24}


def list_cache() -> str:
    """A line an entry, what was used last first, and the sum. Names say nothing of what they stand for."""
    found = [*disk_cache.entries(), *disk_cache.drafts()]
    cells = [
        (one.kind, one.name[:12], disk_cache.in_words(one.size), _ago(one.used), one.what) for one in found
    ]
    lines = [f"{a:10}  {b:12}  {c:>9}  {d:>8}  {e}".rstrip() for a, b, c, d, e in cells]
    total = disk_cache.in_words(sum(one.size for one in found))
    return "\n".join([*lines, f"{len(found)} entries, {total}, in {disk_cache.root()}"])


def clear_cache(names: Sequence[str], *, everything: bool, older_than: str | None) -> str:
    """What was removed, in one line.

    Raises: RecipeError when nothing is named, or a name that is not there.
    """
    if sum((bool(names), everything, older_than is not None)) != 1:
        raise RecipeError(
            "data cache clear: name entries, or say --all or --older-than 30d: one of the three"
        )
    found = disk_cache.entries()
    if names:
        chosen = [*dict.fromkeys(entry for name in names for entry in _named(name, found))]
    else:
        limit = time.time() - _seconds(older_than) if older_than else None
        chosen = [entry for entry in found if limit is None or entry.used < limit]
        chosen += [entry for entry in disk_cache.drafts(_STILL) if limit is None or entry.used < limit]
    for entry in chosen:
        disk_cache.remove(entry.kind, entry.name)
    said = f"removed {len(chosen)} entries, {disk_cache.in_words(sum(entry.size for entry in chosen))}"
    kept = len(disk_cache.drafts()) if everything else 0
    return said + (f"; {kept} unfinished ones were touched within the hour and are left" if kept else "")


def _named(name: str, found: Sequence[disk_cache.Entry]) -> list[disk_cache.Entry]:
    matching = [entry for entry in found if entry.name.startswith(name)]
    if len({entry.name for entry in matching}) != 1:
        near = did_you_mean(name, [entry.name[:12] for entry in found])
        problem = "several entries begin so" if matching else f"no such entry: {near}"
        raise RecipeError(f'data cache clear: "{name}": {problem}')
    return matching


def _seconds(text: str) -> float:
    said = re.fullmatch(r"(\d+)([hd])", text)
    if said is None:
        raise RecipeError(f'--older-than: "{text}" is no time: write 30d for days or 12h for hours')
    return int(said[1]) * _HOURS[said[2]] * 3600


def _ago(used: float) -> str:
    hours = max(0.0, time.time() - used) / 3600
    return f"{hours:.0f} h ago" if hours < 48 else f"{hours / 24:.0f} d ago"
