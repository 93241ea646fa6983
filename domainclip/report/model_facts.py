"""Facts that identify a model in a report, without its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from domainclip.models.dual_encoder import DualEncoder


def model_label(name: str, model: DualEncoder) -> str:
    """What a model of the command line is called in a table: no path stands there."""
    if name == "base":
        return f"base, {_public_name(model.base)}"
    return Path(name).name if Path(name).exists() else name


def model_facts(model: DualEncoder) -> dict[str, Any]:
    """What identifies a model, without its path."""
    act = {
        getattr(side, "hidden_act", None)
        for side in (model.hf_base.config.text_config, model.hf_base.config.vision_config)
    }
    return {
        "name": _public_name(model.base),
        "revision": model.revision,
        "family": model.family,
        "weights_sha256": model.fingerprint("all"),
        "preprocessing": model.image_preprocessor.fingerprint(),
        "resolution": list(model.image_size),
        "activation": sorted(str(one) for one in act),
        "max_tokens": model.max_tokens,
    }


def _public_name(base: str) -> str:
    """A Hub id as it is; of a local folder only its last name, for paths name people and projects."""
    return Path(base).name if Path(base).is_dir() else base
