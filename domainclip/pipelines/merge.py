"""Writes an adapter into plain weights, and proves that they say the same."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from domainclip.errors import DomainclipError, ModelError, RecipeError
from domainclip.evaluation import contamination
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from domainclip.models.saving import save_model
from domainclip.report import model_card, results_file

log = logging.getLogger("domainclip")
_TEXTS = [
    *("", "a", "cat", "a photo of a dog", "no pleural effusion", "1.5 cm nodule, left lower lobe?"),
    *("eine rote Blüte", "一张猫的照片", "صورة", "🌌 M31", "UPPER CASE", "a small round spot " * 40),
]
_IMAGES = 8


def merge(run: Path, out: Path, tolerance: float = 1e-5) -> float:
    """The largest difference between the run's embeddings and those of the plain weights written to `out`.

    Summed in fp32, whatever precision the run was trained in: bf16 alone would cost 1e-2. What is compared
    is the folder as read back, on random pictures and texts of every length; scale and bias count too.

    Raises: RecipeError when `out` exists, ModelError when the run cannot be read, the difference is above
    `tolerance`, or `out` cannot be written; nothing is left at `out` then.
    """
    if out.exists():
        raise RecipeError(f"{out}: exists already; name another folder")
    if not (run / "model").is_dir():
        raise ModelError(f"{run}: no folder model there: name a run folder, as runs/medical_xray-1")
    model = load_model(run / "model")
    before = _said(model)
    _make_plain(model, run)
    staging = out.absolute().parent / f".staging-{out.name}-{uuid.uuid4().hex[:8]}"
    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
        save_model(model, staging)
        difference = _difference(before, _said(load_model(staging)))
        # A difference that is not a number is no agreement either.
        if not difference <= tolerance:
            raise ModelError(
                f"{run}: the merged weights differ from the adapter by {difference:.1e}, more than "
                f"{tolerance:g}; nothing is written: the adapter may be damaged"
            )
        _write_card(run, staging)
        if (run / contamination.FILE).is_file():
            shutil.copy(run / contamination.FILE, staging)
        os.rename(staging, out)
    except OSError as error:
        raise ModelError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return difference


def _make_plain(model: DualEncoder, run: Path) -> None:
    if model.hf_model is model.hf_base:
        return
    try:
        model.hf_model = model.hf_model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise ModelError(f"{run}: its adapter cannot be merged: {str(error).splitlines()[0]}") from None


def _write_card(run: Path, folder: Path) -> None:
    """A card that says how plain weights are used, where the run was measured."""
    if not (run / "results.json").is_file():
        return
    try:
        text = model_card.render(
            results_file.load(run / "results.json"), model_card.CardFacts.of(run), adapter=False
        )
    except DomainclipError as error:
        log.warning("%s: no card is written beside the merged weights: %s", run, error)
        return
    (folder / "README.md").write_text(text, encoding="utf-8")


@torch.no_grad()
def _said(model: DualEncoder) -> list[Tensor]:
    """Embeddings of fixed pictures and texts, scale and bias."""
    draw = np.random.default_rng(0)
    shapes = draw.integers(8, 200, size=(_IMAGES, 2))
    pictures = [Image.fromarray(draw.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]
    prepared = [model.image_preprocessor(picture) for picture in pictures]
    image = {key: torch.from_numpy(np.stack([one[key] for one in prepared])) for key in prepared[0]}
    bias = torch.zeros(()) if model.bias is None else model.bias
    said = [model.encode_image(image), model.encode_text(model.text_tokenizer(_TEXTS)), model.scale, bias]
    return [one.detach() for one in said]


def _difference(before: list[Tensor], after: list[Tensor]) -> float:
    # torch's own maximum keeps NaN, as Python's would not.
    return float(torch.stack([(a - b).abs().max() for a, b in zip(before, after, strict=True)]).max())
