"""Splits without copies of an image in a later split, where the card asks for it."""

from __future__ import annotations

from datasets import DatasetDict

from domainclip.data.images.split_copies import groups_to_leave_out
from domainclip.data.process_pool import available_cores
from domainclip.data.quarantine import ReadLog, UnusableItem
from domainclip.data.schema import SPLITS


def without_copies(
    splits: DatasetDict, digests: dict[str, list[str]], log: ReadLog
) -> tuple[DatasetDict, dict[str, list[str]]]:
    """The items without the groups that have a copy of an image in a later split, each counted in the log."""
    left_out = groups_to_leave_out(splits, digests, available_cores())
    separated, counts = DatasetDict(), list[str]()
    for name in SPLITS:
        ids, groups = splits[name]["id"][:], splits[name]["group"][:]
        reasons = [left_out.reason(name, id, group) for id, group in zip(ids, groups, strict=True)]
        log.unusable += [
            UnusableItem(log.locations[id], reason) for id, reason in zip(ids, reasons, strict=True) if reason
        ]
        rows = [row for row, reason in enumerate(reasons) if not reason]
        separated[name] = splits[name]
        if len(rows) < len(ids):
            separated[name] = splits[name].select(rows).flatten_indices()
        if lost := len(ids) - len(rows):
            counts.append(
                f"{lost} of {len(ids)} items of {name} ({len(left_out.groups[name])} of its groups)"
            )
    if counts:
        log.add_note(
            f"near-duplicates: {' and '.join(counts)} are left out, since nearly the same image is in a "
            "later split (corpus.splits.near_duplicates)"
        )
    stay = {id for name in SPLITS for id in separated[name]["id"][:]}
    return separated, {id: of_item for id, of_item in digests.items() if id in stay}
