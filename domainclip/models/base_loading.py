"""Load the base of a recipe: an adapter, alone or in a run folder, is added to the weights of its own base.

What is trained from it is then a plain model, under every strategy; the names of the bases before it are
recorded in `DualEncoder.trained_from`.
"""

from __future__ import annotations

import json
from pathlib import Path

from domainclip.config import strict_yaml
from domainclip.errors import DomainclipError
from domainclip.models import checkpoint_files, folder_checks
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from domainclip.models.plain_weights import make_plain_base

_LONGEST_CHAIN = 32  # of folders that name each other: a circle


def load_base_model(base: str | Path, revision: str | None = None) -> DualEncoder:
    """The model as plain weights, from a local folder, a run folder or a Hub id.

    Raises: ModelError in one line, for whatever cannot be found, read, merged or used.
    """
    model = load_model(base, revision)
    model.trained_from = _trained_from(str(base))
    if model.hf_model is not model.hf_base:
        name = str(folder_checks.run_model(Path(base).expanduser()) or base)
        make_plain_base(model, name, checkpoint_files.find_checkpoint(name, revision)[1])
    return model


def _trained_from(base: str) -> tuple[str, ...]:
    """The names of the bases that a model was trained from, the last one first."""
    names: list[str] = []
    while (name := _named_base(Path(base).expanduser())) is not None and len(names) < _LONGEST_CHAIN:
        names.append(name)
        base = name
    return tuple(names)


def _named_base(folder: Path) -> str | None:
    """The base that the recipe of a run, or the config of an adapter, names; None for another model."""
    run = next((place for place in (folder, folder.parent) if (place / "recipe.yaml").is_file()), None)
    try:
        if run is not None:
            base = strict_yaml.read_yaml(run / "recipe.yaml", "a recipe").get("base")
            name = base.get("path") if isinstance(base, dict) else base
        else:
            config = (folder / checkpoint_files.ADAPTER_CONFIG).read_text(encoding="utf-8-sig")
            name, _ = folder_checks.adapter_base(str(folder), folder, json.loads(config))
    except (OSError, ValueError, DomainclipError):
        return None
    return name if isinstance(name, str) else None
