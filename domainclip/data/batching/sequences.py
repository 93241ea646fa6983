"""Sequences whose values are computed on access."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar, overload

T = TypeVar("T")


class ComputedSequence(Sequence[T], Generic[T]):
    """A sequence by its length and the value at an index from 0; slices are lists."""

    @abstractmethod
    def at(self, index: int) -> T:
        """The value at an index from 0 to len(self) - 1."""

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self.at(one) for one in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.at(index % len(self))
