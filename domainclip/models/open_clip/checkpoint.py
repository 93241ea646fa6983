"""Load a checkpoint of open_clip from a folder or the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from domainclip.models import checkpoint_files, folder_checks, pickled_weights
from domainclip.models.open_clip import build, config, image_processing, tokenizer

_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
_PICKLES = ("open_clip_pytorch_model.bin", "pytorch_model.bin")


class Parts(NamedTuple):
    """What a dual encoder is made of."""

    hf_model: Any
    hf_tokenizer: Any
    processor: Any


def load_parts(base: str, folder: Path, commit: str | None) -> Parts:
    """Model, tokenizer and image processor of a checkpoint; small files first, so that a fault shows early.

    Raises: ModelError that names what is missing, broken or not supported, and the remedy.
    """
    described = config.read(base, folder)
    processor = image_processing.image_processor(base, described)
    hf_tokenizer = tokenizer.load_tokenizer(base, folder, described)
    file = _find_weights(base, folder, commit)
    hf_model = build.build(base, described, file, hf_tokenizer.eos_token_id)
    return Parts(hf_model, hf_tokenizer, processor)


def _find_weights(base: str, folder: Path, commit: str | None) -> Path:
    for names in (_WEIGHTS, _PICKLES):
        if commit is not None and not _present(folder, _WEIGHTS):
            checkpoint_files.find_files(base, list(names), commit)
        if found := _present(folder, names):
            if names is _WEIGHTS:
                return found
            return pickled_weights.convert(base, folder, found.name) / "model.safetensors"
    others = sorted(file for ending in ("pt", "pth", "bin") for file in folder.glob(f"*.{ending}"))
    if len(others) == 1:  # as RemoteCLIP is published
        return pickled_weights.convert(base, folder, others[0].name) / "model.safetensors"
    folder_checks.refuse(base, f"no weights in the folder, such as {_WEIGHTS[0]}: copy them there")


def _present(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)
