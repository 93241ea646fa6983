"""Whether a run may go on from what it saved: only when recipe, corpus and base are what they were."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from domainclip import checkpoint
from domainclip.errors import DataError, ModelError, RecipeError
from domainclip.prepare import Prepared

log = logging.getLogger("domainclip")


def identity(ready: Prepared) -> dict[str, Any]:
    """What a checkpoint must agree with: recipe, corpus, and the weights it starts from."""
    return {
        "recipe": ready.recipe.identity(),
        "corpus": ready.corpus.fingerprint,
        "base": ready.base.fingerprint("all"),
    }


def saved(folder: Path, identity: Mapping[str, Any]) -> Path | None:
    """The checkpoint to continue from.

    Raises: RecipeError, DataError or ModelError when the run has changed since, with the difference.
    """
    found = checkpoint.newest(folder / "checkpoints")
    if found is None:
        log.warning("%s: no complete checkpoint; starting from the first step", folder)
        return None
    _, facts = checkpoint.load(found)
    before = facts["identity"]
    changed = _differences(before["recipe"], dict(identity["recipe"]))
    if changed:
        raise RecipeError(f"--resume: the recipe has changed since {found.name}: {'; '.join(changed)}")
    if before["corpus"] != identity["corpus"]:
        raise DataError(
            f"--resume: the corpus has changed since {found.name} "
            f"(sha256 {before['corpus'][:12]}, now {identity['corpus'][:12]}): start a new run"
        )
    if before["base"] != identity["base"]:
        raise ModelError(
            f"--resume: the base's weights have changed since {found.name} "
            f"(sha256 {before['base'][:12]}, now {identity['base'][:12]}): start a new run"
        )
    return found


def _differences(before: Any, now: Any, where: str = "") -> list[str]:
    """`train.epochs: 3, now 5` for every key that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        return [
            line for key in keys for line in _differences(before.get(key), now.get(key), f"{where}{key}.")
        ]
    return [] if before == now else [f"{where[:-1]}: {before}, now {now}"]
