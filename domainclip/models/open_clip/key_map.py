"""Which weights of open_clip are which of transformers, as tables that are read in both directions.

open_clip stores query, key and value as one matrix, projections transposed, and timm's tables of positions
with a leading dimension of 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Entry:
    """Weights of open_clip, joined along the first dimension, are those of ours, cut into equal parts."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    transposed: bool = False
    leading: int = 0  # dimensions of 1 that theirs has in front
    shares: tuple[int, ...] = (1,)  # of each of theirs in the joined weight


def to_ours(table: Iterable[Entry], theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under our names; those without an entry are left out.

    Raises: KeyError with the name of a weight that is missing.
    """
    ours: dict[str, Tensor] = {}
    for entry in table:
        whole = _joined([theirs[name] for name in entry.theirs])
        for _ in range(entry.leading):
            whole = whole[0]
        whole = whole.T if entry.transposed else whole
        parts = whole.chunk(len(entry.ours)) if len(entry.ours) > 1 else (whole,)
        ours |= {name: part.contiguous() for name, part in zip(entry.ours, parts, strict=True)}
    return ours


def to_theirs(table: Iterable[Entry], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names of open_clip; those without an entry are left out."""
    theirs: dict[str, Tensor] = {}
    for entry in table:
        whole = _joined([ours[name] for name in entry.ours])
        whole = (whole.T if entry.transposed else whole)[(None,) * entry.leading]
        theirs |= {
            name: part.contiguous() for name, part in zip(entry.theirs, _cut(whole, entry), strict=True)
        }
    return theirs


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]  # a scalar has no dimension to join


def _cut(whole: Tensor, entry: Entry) -> tuple[Tensor, ...]:
    if len(entry.theirs) == 1:
        return (whole,)
    unit = len(whole) // sum(entry.shares)
    parts: tuple[Tensor, ...] = whole.split([unit * share for share in entry.shares])
    return parts


def one(theirs: str, ours: str, *, transposed: bool = False, leading: int = 0) -> Entry:
    """An entry of one weight."""
    return Entry((theirs,), (ours,), transposed, leading)


def both(theirs: str, ours: str) -> list[Entry]:
    """The entries of the weight and the bias of a layer."""
    return [one(f"{theirs}.{kind}", f"{ours}.{kind}") for kind in ("weight", "bias")]


def same(names: Iterable[str], theirs: str, ours: str) -> list[Entry]:
    """The entries of weights that only begin differently."""
    return [one(name, ours + name.removeprefix(theirs)) for name in names if name.startswith(theirs)]
