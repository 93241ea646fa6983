"""Where a training starts: at its first step, or at the checkpoint that it is resumed from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from domainclip.distributed import collectives
from domainclip.errors import DataError
from domainclip.pipelines.inputs import Inputs
from domainclip.training.checkpointing import resume
from domainclip.training.run_context import RunContext


@dataclass(frozen=True)
class StartingPoint:
    """The identity of a training, and the checkpoint it continues from."""

    identity: Mapping[str, Any]  # recipe, corpus, base and curation: a checkpoint must agree with all
    checkpoint: Path | None  # None: the first step


def _trained_on(inputs: Inputs) -> str:
    """The fingerprint of the corpus, and of everything else that is trained on."""
    others = [each.corpus.fingerprint for each in inputs.mixed]
    if inputs.anchor_images is not None:
        others += inputs.anchor_images.digests
    if inputs.anchor_captions.texts:
        others.append(hashlib.sha256("\n".join(inputs.anchor_captions.texts).encode()).hexdigest())
    if not others:
        return inputs.corpus.fingerprint
    return hashlib.sha256(" ".join([inputs.corpus.fingerprint, *others]).encode()).hexdigest()


def find_starting_point(inputs: Inputs, run: RunContext) -> StartingPoint:
    """The newest complete checkpoint of a run that is resumed.

    Raises: RecipeError, DataError or ModelError when recipe, corpus or base have changed since, or differ
    between the machines.
    """
    identity = {
        "recipe": inputs.recipe.identity(),
        "corpus": _trained_on(inputs),
        "base": inputs.model.fingerprint("all"),
        "curated": inputs.train_items.digest(),
    }
    _refuse_other_inputs([dict(one) for one in collectives.gather_objects(identity)])
    if not run.options.resume:
        return StartingPoint(identity, None)
    # One process decides for all.
    checkpoint = collectives.on_first_process(partial(resume.find_checkpoint, run.folder, identity))
    return StartingPoint(identity, checkpoint)


def _refuse_other_inputs(identities: Sequence[Mapping[str, Any]]) -> None:
    """Refuse machines that read different files under one path; `identities` are by rank."""
    for number, other in enumerate(identities):
        changed = [key for key in other if other[key] != identities[0][key]]
        if changed:
            raise DataError(
                f"{changed[0]}: process {number} reads another one than process 0: give all machines the "
                "same files, or a disk that they share"
            )
