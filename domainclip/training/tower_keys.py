"""Keys of the towers' weights during a stage, without hashing those that change."""

from __future__ import annotations

from itertools import count
from typing import Any

from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.layers import MODALITIES, Modality

_numbers = count(1)  # of all validations of this process


class TowerKeys:
    """Keys for the embeddings of a validation: a frozen tower keeps its own, a trained one gets a new one.

    Made anew for each stage, since other weights learn in it. The weights of ViT-L take seconds to hash.
    """

    def __init__(self) -> None:
        self._frozen: dict[Modality, str] = {}

    def keys(self, model: DualEncoder) -> dict[Modality, Any]:
        """The key of each tower at this validation."""
        return {tower: self._key(model, tower) for tower in MODALITIES}

    def _key(self, model: DualEncoder, tower: Modality) -> Any:
        (other,) = set(MODALITIES) - {tower}
        unrelated = (f"{other}/", "scale/", "bias/")  # whatever else learns may change this tower
        trained = (weight for name, weight in model.weights().items() if not name.startswith(unrelated))
        if any(weight.requires_grad for weight in trained):
            return "validation", next(_numbers)
        if tower not in self._frozen:
            self._frozen[tower] = model.fingerprint(tower)
        return self._frozen[tower]
