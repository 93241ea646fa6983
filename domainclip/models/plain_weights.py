"""Add an adapter to the weights that it was trained on."""

from __future__ import annotations

from domainclip.errors import ModelError
from domainclip.models.dual_encoder import DualEncoder


def make_plain(model: DualEncoder, where: str) -> None:
    """Add the adapter around a model to its weights, in place and in fp32; without effect on plain weights.

    Raises: ModelError that begins with `where` when an update is not a finite number, or the model has a
    distance of its own, which plain weights do not hold.
    """
    if model.space is not None:
        raise ModelError(
            f"{where}: objectives.hyperbolic has given it a distance of its own, which no other program "
            "computes: use it as it is, or train with contrastive"
        )
    if model.hf_model is model.hf_base:
        return
    try:
        model.hf_model = model.hf_model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise ModelError(f"{where}: its adapter cannot be merged: {str(error).splitlines()[0]}") from None


def make_plain_base(model: DualEncoder, base: str, commit: str | None) -> None:
    """The same for a model that is a base, which then has the name and the commit of its adapter.

    Raises: ModelError as `make_plain`.
    """
    if model.hf_model is model.hf_base:
        return
    make_plain(model, f'base "{base}"')
    model.base, model.revision = base, commit
    model.hf_model.name_or_path = model.hf_model.config.name_or_path = base
