"""Resume: a run continues from its newest checkpoint only with the same recipe, corpus and base."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from domainclip.errors import DataError, ModelError, RecipeError
from domainclip.training.checkpointing import checkpoint

log = logging.getLogger("domainclip")


def find_checkpoint(folder: Path, identity: Mapping[str, Any]) -> Path | None:
    """Return the newest complete checkpoint of a run folder; None, with a warning, when it has none.

    Raises: RecipeError, DataError or ModelError when the run has changed since, with the difference;
    ModelError when all checkpoints are damaged.
    """
    checkpoints = folder / "checkpoints"
    newest = checkpoint.newest_checkpoint(checkpoints)
    if newest is None:
        if damaged := len(checkpoint.all_checkpoints(checkpoints)):
            raise ModelError(
                f"--resume: none of the {damaged} checkpoints in {checkpoints} is complete; remove that "
                "folder to start from the first step"
            )
        log.warning("%s: no complete checkpoint; starting from the first step", folder)
        return None
    before = checkpoint.load_state(newest)["identity"]
    changed = changed_keys(before["recipe"], dict(identity["recipe"]))
    if changed:
        raise RecipeError(f"--resume: the recipe has changed since {newest.name}: {'; '.join(changed)}")
    if before["corpus"] != identity["corpus"]:
        raise DataError(
            f"--resume: the corpus has changed since {newest.name} "
            f"(sha256 {before['corpus'][:12]}, now {identity['corpus'][:12]}): start a new run"
        )
    # Checkpoints from before there was curation by embeddings do not record the chosen items.
    if before.get("curated") not in (None, identity["curated"]):
        raise DataError(
            f"--resume: the curation chooses other items, or another order, than before {newest.name}: "
            "the base's embeddings were computed on another machine or by another release: start a new run"
        )
    if before["base"] != identity["base"]:
        raise ModelError(
            f"--resume: the base's weights have changed since {newest.name} "
            f"(sha256 {before['base'][:12]}, now {identity['base'][:12]}): start a new run"
        )
    return newest


def changed_keys(before: Any, now: Any, where: str = "") -> list[str]:
    """Return a line such as `train.epochs: 3, now 5` for every key that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        return [
            line for key in keys for line in changed_keys(before.get(key), now.get(key), f"{where}{key}.")
        ]
    return [] if before == now else [f"{where[:-1]}: {before}, now {now}"]
