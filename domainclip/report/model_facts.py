"""Facts that identify a model in a report, without its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from domainclip.evaluation.run_folders import find_run
from domainclip.models.dual_encoder import DualEncoder


def model_label(name: str, model: DualEncoder) -> str:
    """The name of a model in a table, without a path."""
    if name == "base":
        return f"base, {_public_name(model.base)}"
    run = find_run(name)
    if run is not None and run != Path(name):  # RUN/checkpoints/step-8
        return f"{run.resolve().name}, {Path(name).name}"
    return Path(name).name if Path(name).exists() else name


def model_facts(model: DualEncoder, name: str | None = None) -> dict[str, Any]:
    """The facts that identify a model, without its path; its name by default is that of its base."""
    act = {
        getattr(side, "hidden_act", None)
        for side in (model.hf_base.config.text_config, model.hf_base.config.vision_config)
    }
    origins = [_public_name(base) for base in model.trained_from]
    return {
        "name": name or _public_name(model.base),
        "revision": model.revision,
        **({"trained_from": origins} if origins else {}),
        "family": model.family,
        "weights_sha256": model.fingerprint("all"),
        "preprocessing": model.image_preprocessor.fingerprint(),
        "resolution": list(model.image_size),
        "activation": sorted(str(name) for name in act),
        "max_tokens": model.max_tokens,
    }


def _public_name(base: str) -> str:
    """A Hub id unchanged; of a run or a local folder only its name: paths may name persons and projects."""
    if (run := find_run(base)) is not None:
        return run.resolve().name
    return Path(base).name if Path(base).is_dir() else base
