"""Weights that are stored as a pickle, as safetensors in the disk cache: converted once for each content.

A pickle is a program. torch's restricted reader runs none: it builds tensors and plain containers, and stops
at anything else. What it stops at is refused by name.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from domainclip import disk_cache
from domainclip.models import folder_checks

INDEX = "pytorch_model.bin.index.json"
_FORM = "safetensors 1"
_SAFE_SINCE = (2, 6)  # before, the restricted reader could be made to run code: CVE-2025-32434
_NESTED = ("state_dict", "model_state_dict", "model")  # where checkpoints of a training have the weights
_REFUSED = re.compile(r"GLOBAL ([\w.]+)|[Uu]nsupported (?:class|operand|global) (?:GLOBAL )?([\w.]+)")
_SAFER = "name a revision or another base that has model.safetensors"


def convert(base: str, folder: Path, name: str) -> Path:
    """The folder in the disk cache with the weights of a pickle, or of an index of several.

    They are in its file `model.safetensors`.

    Raises: ModelError for a pickle that is damaged or holds more than weights, a missing part, and a disk
    cache that cannot be written.
    """
    _require_safe_reader(base, name)
    files = [folder / name] if name != INDEX else _parts(base, folder)
    entry = disk_cache.key(_FORM, [_digest(file) for file in files])
    place = disk_cache.find_files("weights", entry)
    if place is not None:
        return place
    weights = {key: tensor for file in files for key, tensor in _read(base, file).items()}
    about = {"what": f"weights, converted from {name}"}
    try:
        with disk_cache.writing_files("weights", entry, about) as draft:
            save_file(dict(_apart(weights)), draft / "model.safetensors", {"format": "pt"})
    except OSError as error:
        folder_checks.refuse(
            base,
            f"{name} cannot be converted: {disk_cache.root()} cannot be written: {error.strerror}: free some "
            "space, or name another folder with DOMAINCLIP_CACHE",
        )
    place = disk_cache.find_files("weights", entry)
    assert place is not None  # just written
    return place


def _parts(base: str, folder: Path) -> list[Path]:
    try:
        names = json.loads((folder / INDEX).read_text(encoding="utf-8-sig"))["weight_map"].values()
        files = [folder / Path(str(name)).name for name in sorted({str(name) for name in names})]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        folder_checks.refuse(base, f"{INDEX} cannot be read: download it again")
    for file in files:
        if not file.is_file():
            folder_checks.refuse(base, f"{file.name} is missing: download it again")
    return files


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read(base: str, file: Path) -> Mapping[str, Tensor]:
    """The weights of one file by name, mapped from the disk where its format allows that."""
    try:
        try:
            data = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):
                raise
            data = torch.load(file, map_location="cpu", weights_only=True)  # the format before torch 1.6
    except pickle.UnpicklingError as error:
        match = _REFUSED.search(str(error))
        what = f"({match[1] or match[2]}) " if match else ""
        folder_checks.refuse(base, f"{file.name} holds more than weights {what}and is not loaded: {_SAFER}")
    except Exception as error:
        if "TorchScript" in str(error):
            folder_checks.refuse(base, f"{file.name} is a TorchScript program, which is not run: {_SAFER}")
        folder_checks.refuse(base, f"{file.name} is incomplete or damaged: download it again")
    data = next((data[key] for key in _NESTED if isinstance(_item(data, key), dict)), data)
    if not isinstance(data, dict) or not all(isinstance(value, Tensor) for value in data.values()):
        folder_checks.refuse(base, f"{file.name} is no mapping of names to weights: {_SAFER}")
    # torch's wrappers for several devices put a word in front of every name.
    wrapped = all(str(key).startswith("module.") for key in data)
    return {str(key).removeprefix("module.") if wrapped else str(key): value for key, value in data.items()}


def _item(data: Any, key: str) -> Any:
    return data.get(key) if isinstance(data, dict) else None


def _apart(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors, each with memory of its own: safetensors refuses two names for the same."""
    seen: set[int] = set()
    for name, tensor in weights.items():
        whole = tensor.untyped_storage()
        shared = whole.data_ptr() in seen or whole.nbytes() != tensor.nbytes
        seen.add(whole.data_ptr())
        yield name, tensor.clone(memory_format=torch.contiguous_format) if shared else tensor.contiguous()


def _require_safe_reader(base: str, name: str) -> None:
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < _SAFE_SINCE:
        fault = f"is a pickle, which torch {torch.__version__} does not read safely"
        folder_checks.refuse(base, f'{name} {fault}: pip install "torch>=2.6"')
