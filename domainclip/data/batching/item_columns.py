"""Columns of items as sequences: in memory for few items, read from the table on access for many.

Python objects of a caption, its id and its number take kilobytes; in the table, which processes share, they
take their letters. An access costs some microseconds, which decoding an image exceeds many times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from datasets import Dataset

from domainclip.data.batching.sequences import ComputedSequence

T = TypeVar("T")

IN_MEMORY = 20_000  # items up to which a column is held as Python objects
_ROWS = 1000  # read at once by an iteration


def derived_column(items: Dataset, names: Sequence[str], make: Callable[..., T]) -> Sequence[T]:
    """`make(*values)` of each item, with its values of the columns `names`; a pure function of them."""
    column = DerivedColumn(items, tuple(names), make)
    return list(column) if len(items) <= IN_MEMORY else column


@dataclass(frozen=True)
class DerivedColumn(ComputedSequence[T]):
    """A value of each item, computed from some of its columns on every access."""

    items: Dataset
    names: tuple[str, ...]
    make: Callable[..., T]

    @cached_property
    def _columns(self) -> tuple[Any, ...]:
        return tuple(self.items.data.column(name) for name in self.names)

    @cached_property
    def _rows(self) -> Any:
        """The row in the table of each item; None where they are in the order of the table."""
        indices = self.items._indices
        return None if indices is None else indices.column(0)

    def __getstate__(self) -> dict[str, Any]:
        # A process that receives it maps the table itself; columns would be sent with all their bytes.
        return {"items": self.items, "names": self.names, "make": self.make}

    def __len__(self) -> int:
        return len(self.items)

    def at(self, index: int) -> T:
        row = index if self._rows is None else self._rows[index].as_py()
        return self.make(*(column[row].as_py() for column in self._columns))

    def __iter__(self) -> Iterator[T]:
        for part in self.items.select_columns(list(self.names)).with_format(None).iter(_ROWS):
            yield from map(self.make, *(part[name] for name in self.names))
