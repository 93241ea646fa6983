"""Copies of tensors in main memory, of which each process holds a share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from domainclip.distributed import collectives


class SharedTensors(Mapping[str, Tensor]):
    """Copies of tensors that all processes have alike, by name; 1/w of each tensor lies on each process.

    A tensor is gathered whenever it is read, so all processes read the same names in the same order. Names
    alone are known to each.

    Legend: w processes.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy this process's share of each tensor."""
        self._shapes = {name: tensor.shape for name, tensor in tensors.items()}
        self._own = {name: _own_share(tensor) for name, tensor in tensors.items()}

    def __getitem__(self, name: str) -> Tensor:
        """Return the whole tensor in main memory; all processes call it."""
        shape = self._shapes[name]
        flat = collectives.gather_on_hosts(self._own[name], "the weights of all processes")
        return flat[: shape.numel()].view(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def __contains__(self, name: object) -> bool:
        return name in self._shapes


def _own_share(tensor: Tensor) -> Tensor:
    """Return (n,) this process's numbers; the last processes may have fewer, which are filled up with 0."""
    flat = tensor.detach().reshape(-1)
    length = -(-len(flat) // collectives.process_count())
    begin = collectives.rank() * length
    own = flat[begin : begin + length]
    share = torch.zeros(length, dtype=tensor.dtype)
    share[: len(own)] = own
    return share
