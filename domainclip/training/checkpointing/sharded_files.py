"""Tensors of a checkpoint in one file for each process, written and read by torch.distributed.checkpoint.

Each process writes the shards that it holds; a tensor that all hold alike is written by one. The files are
safetensors, whose header states which part of which tensor they have: nothing to unpickle, and any other
number of processes reads them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp_package
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from domainclip.distributed import collectives
from domainclip.errors import ModelError, RecipeError

dcp: Any = dcp_package  # which declares none of its names as public
FILES = "shard-*.safetensors"
_SEPARATOR = "/"  # between the group of a tensor and its name
Groups = Mapping[str, Mapping[str, Tensor]]


def require_library() -> None:
    """Check for a release of torch that writes safetensors.

    Raises: RecipeError.
    """
    if not hasattr(dcp, "HuggingFaceStorageWriter"):
        raise RecipeError(
            f"train.sharded_checkpoints: needs torch 2.9 or newer, and this is {torch.__version__}: update "
            "torch, or leave sharded_checkpoints out"
        )


def has_shards(folder: Path) -> bool:
    """Return whether the tensors of a checkpoint are in files of this kind."""
    return any(folder.glob(FILES))


def write(folder: Path, groups: Groups) -> None:
    """Write the shards of this process into a folder that all processes see; all call it together.

    Raises: ModelError on all of them when one cannot write.
    """
    tensors = {
        f"{group}{_SEPARATOR}{name}": tensor.detach()
        for group, named in groups.items()
        for name, tensor in named.items()
    }
    writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with collectives.keep_alive("the checkpoint of all processes"), _one_line(folder, "written"):
        dcp.save(tensors, storage_writer=writer, **_processes())


def read(folder: Path, group: str | None = None) -> dict[str, dict[str, Tensor]]:
    """Return whole tensors by group and name, all or those of one group; each process reads by itself."""
    reader = dcp.HuggingFaceStorageReader(str(folder))
    with _one_line(folder, "read"):
        tensors = {
            name: torch.empty(about.size, dtype=about.properties.dtype)
            for name, about in reader.read_metadata().state_dict_metadata.items()
            if group is None or name.partition(_SEPARATOR)[0] == group
        }
        dcp.load(tensors, storage_reader=reader, no_dist=True)
    groups: dict[str, dict[str, Tensor]] = {}
    for full_name, tensor in tensors.items():
        found, _, name = full_name.partition(_SEPARATOR)
        groups.setdefault(found, {})[name] = tensor
    return groups


def names(folder: Path, group: str) -> list[str]:
    """Return the names of the tensors of a group."""
    found = dcp.HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return [name.partition(_SEPARATOR)[2] for name in found if name.partition(_SEPARATOR)[0] == group]


def read_into(folder: Path, groups: Groups) -> None:
    """Fill these tensors in place, sharded or whole, each process only the shards that it holds."""
    tensors = {
        f"{group}{_SEPARATOR}{name}": tensor.detach()
        for group, named in groups.items()
        for name, tensor in named.items()
    }
    with _one_line(folder, "read"):
        dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(folder)), **_processes())


def _processes() -> dict[str, Any]:
    if collectives.process_count() == 1:
        return {"no_dist": True}
    return {"process_group": collectives.message_group()}


@contextmanager
def _one_line(folder: Path, done: str) -> Iterator[None]:
    """Raises: ModelError for a fault of a file on any process."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process alone is meant
            yield
    except (CheckpointException, OSError) as error:
        reasons = [str(failed[0]) for failed in getattr(error, "failures", {}).values()] or [str(error)]
        reason = reasons[0].splitlines()[0]
        raise ModelError(
            f"{folder}: the shards of the checkpoint cannot be {done}: {reason}: correct that, then continue "
            "with --resume"
        ) from None
