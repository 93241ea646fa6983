"""The command `merge`: the updates of several runs of one base as one model."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from domainclip.distributed.folder_lock import refuse_if_in_use
from domainclip.errors import ModelError, RecipeError
from domainclip.evaluation import contamination
from domainclip.models.base_loading import load_base_model
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from domainclip.models.plain_weights import make_plain
from domainclip.models.saving import save_model
from domainclip.models.weight_merging import Update, merge_updates
from domainclip.pipelines import evaluate
from domainclip.pipelines.eval_request import EvalRequest
from domainclip.pipelines.merge_request import MergeRequest
from domainclip.report import model_card

FILE = "merge.json"


def merge(request: MergeRequest) -> None:
    """Write plain weights with the merged updates, and what they were made of.

    Raises: RecipeError for runs of different bases; ModelError for a run whose weights are not those of its
    base, or a folder that cannot be written. Then nothing is left at `out`.
    """
    for run in request.runs:
        refuse_if_in_use(run)
    base = _common_base(request.runs)
    merged = merge_updates(
        [_update(run, base) for run in request.runs], request.all_shares, request.method, request.density
    )
    with torch.no_grad():
        for name, weight in base.weights().items():
            weight.add_(merged[name].to(weight.dtype))
    _write(request, base)


def report_lines(request: MergeRequest, split: str = "validation") -> list[str]:
    """The commands that measure the merged model on the corpus of each run, beside that run."""
    out = shlex.quote(str(request.out))
    return [
        f"domainclip eval base {shlex.quote(str(run))} {out} --split {split} --out {shlex.quote(str(folder))}"
        for run, folder in zip(request.runs, request.reports, strict=True)
    ]


def measure(request: MergeRequest, split: str, command: str) -> list[Path]:
    """The reports of the merged model on the corpus of each run, beside base and run; their paths."""
    pages = [
        evaluate.evaluate_models(
            EvalRequest(
                models=["base", str(run), str(request.out)],
                split=split,
                out=folder,
                command=command,
                quiet=True,
            )
        )
        for run, folder in zip(request.runs, request.reports, strict=True)
    ]
    return [page for page in pages if page is not None]


def _common_base(runs: Sequence[Path]) -> DualEncoder:
    """The base of all runs, with plain weights."""
    bases = [model_card.run_recipe(run).base for run in runs]
    first = load_base_model(bases[0].path, bases[0].revision)
    known = first.fingerprint("all")
    for run, other in zip(runs[1:], bases[1:], strict=True):
        if other == bases[0]:
            continue
        if load_base_model(other.path, other.revision).fingerprint("all") != known:
            raise RecipeError(
                f"{run}: its base is not that of {runs[0]}, and updates of different weights do not add up: "
                "merge runs of one base"
            )
    return first


def _update(run: Path, base: DualEncoder) -> Update:
    model = load_model(run / "model")
    if model.scorer is not None:
        raise ModelError(
            f"{run}: has a class scorer and the weights of its base: there is no update to merge"
        )
    make_plain(model, str(run))
    weights, start = model.weights(), base.weights()
    different = sorted(name for name in weights.keys() ^ start.keys())
    different += sorted(
        name for name in weights.keys() & start.keys() if weights[name].shape != start[name].shape
    )
    if different:
        raise ModelError(
            f"{run}: weight {different[0]} is not one of its base (learned prompts, positions or another "
            "tower): such a run cannot be merged"
        )
    return {name: _difference(weight, start[name]) for name, weight in weights.items()}


def _difference(weight: Tensor, start: Tensor) -> Tensor:
    return weight.detach().float() - start.detach().float()


def _write(request: MergeRequest, model: DualEncoder) -> None:
    staging = request.out.absolute().parent / f".staging-{request.out.name}-{uuid.uuid4().hex[:8]}"
    facts = {
        "schema_version": 1,
        "runs": [run.name for run in request.runs],
        "shares": request.all_shares,
        "method": request.method,
        "density": request.density if request.method == "ties" else None,
    }
    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
        save_model(model, staging)
        records = [contamination.load(str(run)) for run in request.runs]
        if (joined := contamination.join([record for record in records if record is not None])) is not None:
            contamination.save(staging, joined)
        (staging / FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        os.rename(staging, request.out)
    except OSError as error:
        raise ModelError(f"{request.out}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
