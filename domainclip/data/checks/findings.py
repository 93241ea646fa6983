"""Findings of the checks: one line each, with its level and the locations concerned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from domainclip.data.cards import Checks
from domainclip.errors import DataError

Level = Literal["error", "warning", "info"]
LEVELS: tuple[Level, ...] = ("error", "warning", "info")
MAX_LOCATIONS = 5  # that the text of a finding names
# The model was evaluated on items it was trained on: no metric on this corpus is valid.
LEAK_CODES = ("group_leak", "image_leak", "near_duplicates")


@dataclass(frozen=True)
class Finding:
    """One result of a check."""

    level: Level
    text: str  # one line
    code: str = ""  # the kind of finding, stable across versions
    count: int = 0  # of items, pairs, captions or classes, as the text says
    where: tuple[str, ...] = ()  # all locations, "row 3": they reveal nothing about a patient


def apply_card_levels(findings: Iterable[Finding], checks: Checks) -> list[Finding]:
    """The findings with the levels that the card sets, errors first; those set to "off" are left out."""
    levels = {code: level for code, level in checks if level is not None}
    reported = [
        replace(finding, level=levels.get(finding.code, finding.level))
        for finding in findings
        if levels.get(finding.code) != "off"
    ]
    return sorted(reported, key=lambda finding: LEVELS.index(finding.level))


def refuse_errors(findings: Sequence[Finding]) -> None:
    """Stop if there are errors.

    Raises: DataError with the first error and the number of others.
    """
    errors = [finding.text for finding in findings if finding.level == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise DataError(f"corpus: {errors[0]}{more}")


def leak_messages(findings: Sequence[Finding]) -> list[str]:
    """The texts of leaks: errors that invalidate every metric measured on this corpus."""
    return [f.text for f in findings if f.level == "error" and f.code in LEAK_CODES]


def tolerated_copies(findings: Sequence[Finding]) -> list[str]:
    """A sentence that limits the verdict where the card lets copies of an image in two splits pass."""
    return [
        f"{f.count} {'pair' if f.count == 1 else 'pairs'} of nearly the same image in two splits, which "
        "corpus.checks.near_duplicates lets pass: where they are copies, the metrics are too high."
        for f in findings
        if f.code == "near_duplicates" and f.level != "error"
    ]
