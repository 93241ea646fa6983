"""What a check has to say: one line, how grave it is, and where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from domainclip.data.cards import Checks
from domainclip.errors import DataError

Level = Literal["error", "warning", "info"]
LEVELS: tuple[Level, ...] = ("error", "warning", "info")
MAX_PLACES = 5  # places that a finding names
# A model that was measured on what it has seen: no figure of it may be believed.
LEAK_CODES = ("group_leak", "picture_leak", "near_duplicates")


@dataclass(frozen=True)
class Finding:
    """One thing found, in one line."""

    level: Level
    text: str
    code: str = ""  # what kind of thing, the same in every version
    count: int = 0  # items, pairs, captions or classes, as the text says
    where: tuple[str, ...] = ()  # the first places, "row 3": they say nothing of a patient


def apply_card_levels(found: Iterable[Finding], card: Checks) -> list[Finding]:
    """Findings as grave as the card says, errors first; those that it switches off are left out."""
    said = {name: level for name, level in card if level is not None}
    kept = [
        replace(finding, level=said.get(finding.code, finding.level))
        for finding in found
        if said.get(finding.code) != "off"
    ]
    return sorted(kept, key=lambda finding: LEVELS.index(finding.level))


def refuse_errors(found: Sequence[Finding]) -> None:
    """Stops on errors.

    Raises: DataError with the first error, and how many more there are.
    """
    errors = [finding.text for finding in found if finding.level == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise DataError(f"corpus: {errors[0]}{more}")


def leak_messages(found: Sequence[Finding]) -> list[str]:
    """The lines that make every figure measured on this corpus invalid."""
    return [finding.text for finding in found if finding.level == "error" and finding.code in LEAK_CODES]
