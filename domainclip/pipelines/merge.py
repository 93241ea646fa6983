"""The command `merge`: write an adapter into plain weights, and verify that the embeddings are the same."""

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

from domainclip.distributed.folder_lock import refuse_if_in_use
from domainclip.errors import DomainclipError, ModelError, RecipeError
from domainclip.evaluation import contamination, run_classes
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from domainclip.models.plain_weights import make_plain
from domainclip.models.saving import save_model
from domainclip.report import external_evaluations, model_card, results_file
from domainclip.report.usage import ModelUse

log = logging.getLogger("domainclip")
_TEXTS = [
    *("", "a", "cat", "a photo of a dog", "no pleural effusion", "1.5 cm nodule, left lower lobe?"),
    *("eine rote Blüte", "一张猫的照片", "صورة", "🌌 M31", "UPPER CASE", "a small round spot " * 40),
]
_IMAGES = 8


def merge(run: Path, out: Path, tolerance: float = 1e-5) -> float:
    """Write plain weights to `out`; the largest difference between their embeddings and those of the run.

    The weights are added in fp32, whatever precision the run was trained in: bf16 alone would cost 1e-2. The
    folder as read back is compared, on random images and texts of every length; scale and bias count too.

    Raises: RecipeError when `out` exists; ModelError when the run cannot be read, the difference is above
    `tolerance`, or `out` cannot be written. Then nothing is left at `out`.
    """
    if out.exists():
        raise RecipeError(f"{out}: exists already; name another folder")
    if not (run / "model").is_dir():
        raise ModelError(f"{run}: no folder model there: name a run folder, as runs/medical_xray-1")
    refuse_if_in_use(run)
    model = load_model(run / "model")
    before = _outputs(model)
    make_plain(model, str(run))
    staging = out.absolute().parent / f".staging-{out.name}-{uuid.uuid4().hex[:8]}"
    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
        save_model(model, staging)
        difference = _difference(before, _outputs(load_model(staging)))
        # A difference that is not a number fails too.
        if not difference <= tolerance:
            raise ModelError(
                f"{run}: the merged weights differ from the adapter by {difference:.1e}, more than "
                f"{tolerance:g}; nothing is written: the adapter may be damaged"
            )
        if (classes := run_classes.beside_weights(run / "model")) is not None:
            run_classes.save(staging, classes)  # its thresholds hold: the embeddings are the same
        _write_card(run, staging)  # with these classes
        if (run / contamination.FILE).is_file():
            shutil.copy(run / contamination.FILE, staging)
        os.rename(staging, out)
    except OSError as error:
        raise ModelError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return difference


def _write_card(run: Path, folder: Path) -> None:
    """A model card that shows how plain weights are used, if the run has results."""
    if not (run / "results.json").is_file():
        return
    try:
        results = results_file.load(run / "results.json")
        text = model_card.render(
            results,
            model_card.CardFacts.of(run),
            ModelUse.of(folder, model_card.family(results)),
            external=external_evaluations.load(run),
        )
    except DomainclipError as error:
        log.warning("%s: no card is written beside the merged weights: %s", run, error)
        return
    (folder / "README.md").write_text(text, encoding="utf-8")


@torch.no_grad()
def _outputs(model: DualEncoder) -> list[Tensor]:
    """Embeddings of fixed images and texts, scale and bias."""
    draw = np.random.default_rng(0)
    shapes = draw.integers(8, 200, size=(_IMAGES, 2))
    images = [Image.fromarray(draw.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]
    preprocessed = [model.image_preprocessor(image) for image in images]
    pixels = {
        key: torch.from_numpy(np.stack([arrays[key] for arrays in preprocessed])) for key in preprocessed[0]
    }
    bias = torch.zeros(()) if model.bias is None else model.bias
    outputs = [model.encode_image(pixels), model.encode_text(model.text_tokenizer(_TEXTS)), model.scale, bias]
    return [output.detach() for output in outputs]


def _difference(before: list[Tensor], after: list[Tensor]) -> float:
    # torch's maximum is NaN where a value is; Python's is not.
    return float(torch.stack([(a - b).abs().max() for a, b in zip(before, after, strict=True)]).max())
