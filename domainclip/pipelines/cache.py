"""The command `data cache`: list and clear what runs have cached on disk."""

from __future__ import annotations

import time
from collections.abc import Sequence

from domainclip import disk_cache
from domainclip.config import durations
from domainclip.errors import RecipeError, did_you_mean

_UNTOUCHED = 3600.0  # seconds: a draft that a run writes is touched more often


def cached() -> list[disk_cache.Entry]:
    """The entries, the last used first, and then the unfinished ones."""
    return [*disk_cache.entries(), *disk_cache.drafts()]


COLUMNS = ("kind", "name", "size", "used", "content")


def cache_rows() -> list[tuple[str, ...]]:
    """The COLUMNS of each entry, the last used first. Names reveal nothing of the content."""
    return [
        (
            entry.kind,
            entry.name[:12],
            disk_cache.format_size(entry.size),
            _age(entry.last_used),
            entry.description,
        )
        for entry in cached()
    ]


def cache_total() -> str:
    """The number of entries, their size and their folder, in one line."""
    entries = cached()
    total = disk_cache.format_size(sum(entry.size for entry in entries))
    return f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'}, {total}, in {disk_cache.root()}"


def clear_cache(names: Sequence[str], *, everything: bool, older_than: str | None) -> str:
    """Remove entries; what was removed, in one line.

    Raises: RecipeError when nothing is named, or a name that does not exist.
    """
    if sum((bool(names), everything, older_than is not None)) != 1:
        raise RecipeError(
            "data cache clear: name entries, or set --all or --older-than 30d: one of the three"
        )
    entries = disk_cache.entries()
    if names:
        removed = [*dict.fromkeys(entry for name in names for entry in _named(name, entries))]
    else:
        limit = time.time() - _seconds(older_than) if older_than else None
        candidates = [*entries, *disk_cache.drafts(_UNTOUCHED)]
        removed = [entry for entry in candidates if limit is None or entry.last_used < limit]
    for entry in removed:
        disk_cache.remove(entry.kind, entry.name)
    line = f"removed {len(removed)} entries, {disk_cache.format_size(sum(entry.size for entry in removed))}"
    drafts = len(disk_cache.drafts()) if everything else 0
    return line + (f"; {drafts} unfinished ones were touched within the hour and are left" if drafts else "")


def _named(name: str, entries: Sequence[disk_cache.Entry]) -> list[disk_cache.Entry]:
    matching = [entry for entry in entries if entry.name.startswith(name)]
    if len({entry.name for entry in matching}) != 1:
        near = did_you_mean(name, [entry.name[:12] for entry in entries])
        problem = "several entries begin so" if matching else f"no such entry: {near}"
        raise RecipeError(f'data cache clear: "{name}": {problem}')
    return matching


def _seconds(text: str) -> int:
    try:
        return durations.seconds(text)
    except ValueError as error:
        raise RecipeError(f"--older-than: {error}") from None


def _age(used: float) -> str:
    hours = max(0.0, time.time() - used) / 3600
    return f"{hours:.0f} h ago" if hours < 48 else f"{hours / 24:.0f} d ago"
