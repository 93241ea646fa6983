"""No weight learns: the base and other models answer together, by shares chosen on the validation split."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from domainclip.errors import ModelError, RecipeError
from domainclip.strategies.base import Strategy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domainclip.models.dual_encoder import DualEncoder

_KEY = "strategy.backbone_ensemble.members"
_MOST_SHARES = 2000  # milliseconds each


@dataclass(frozen=True, kw_only=True)
class BackboneEnsemble(Strategy):
    """logit(x, t) = Σ_k u_k (s_k cos_k(x, t) + b_k) over the base and the members k. [arXiv:2405.17139]

    s_k and b_k are scale and bias of a model, u_k its share. Backbones that were trained alike are right
    about different images, so together they can be better than each. The shares are those with the best
    macro recall (macro AUROC where several classes may hold together) on the validation split, among all
    multiples of 1 / `steps` whose sum is 1: the base alone, where nothing is better; equal ones without
    classes. Members may be run folders: the runs of several seeds answer together.

    The embedding of the ensemble has those of all models side by side, each times √(u_k s_k / Σ_j u_j s_j):
    its cosines are the weighted ones, so that retrieval, search and probes use it like any other. It costs
    the time of all models, and its width is the sum of theirs. It is saved as one folder (model type
    clip_ensemble), which this package reads and other libraries do not.

    Differs: the paper learns a temperature of each backbone as a function of the image, from few labelled
    images; the shares here are the same for all images. All models are of one family, with the same
    tokenizer and the same preprocessing, as the published CLIPs with 224 pixels are.
    """

    citation: ClassVar[str] = "arXiv:2405.17139"
    models: ClassVar[tuple[str, ...]] = ("members",)

    members: Annotated[tuple[str, ...], Field(min_length=1, max_length=7)]  # folders, runs or Hub ids
    steps: Annotated[int, Field(ge=1, le=20)] = 4  # shares are multiples of 1 / steps

    def __post_init__(self) -> None:
        tried = comb(self.steps + len(self.members), len(self.members))
        if tried > _MOST_SHARES:
            raise RecipeError(
                f"strategy.backbone_ensemble.steps: {self.steps} with {len(self.members)} members: {tried:,} "
                f"shares to try, of {_MOST_SHARES:,} at most: lower it"
            )

    @property
    def trains_weights(self) -> bool:
        """No."""
        return False

    @property
    def shares(self) -> Sequence[tuple[float, ...]]:
        """All multiples of 1 / `steps` of the base and the members whose sum is 1."""
        return [tuple(count / self.steps for count in c) for c in _counts(self.steps, len(self.members) + 1)]

    @property
    def joined_models(self) -> Sequence[str]:
        """The members."""
        return self.members

    def build_model(self, base: DualEncoder) -> DualEncoder:
        """The ensemble with equal shares.

        Raises: ModelError when a member cannot be read, or does not read what the base reads.
        """
        from domainclip.models.base_loading import load_base_model
        from domainclip.models.ensemble import join_members
        from domainclip.models.families.clip_ensemble import ClipEnsemble

        members = []
        for name in self.members:
            try:
                member = load_base_model(name)
            except ModelError as error:
                raise ModelError(str(error).replace('base "', f'{_KEY}: "', 1)) from None
            if reason := _difference(base, member):
                raise ModelError(f"{_KEY}: {name}: {reason}")
            members.append(member)
        tokenizer, processor = base.text_tokenizer.hf_tokenizer, base.hf_image_processor
        joined = join_members([base, *members])
        joined.name_or_path = joined.config.name_or_path = base.base
        return ClipEnsemble(joined, tokenizer, processor, base.base, base.revision).eval()

    def learning_rates(self, model: DualEncoder) -> dict[str, float]:
        """All weights are frozen."""
        return model.set_trainable([(".*", 0.0)])


def _counts(total: int, terms: int) -> list[tuple[int, ...]]:
    """All tuples of so many counts from 0 whose sum is `total`, the largest first count first."""
    if terms == 1:
        return [(total,)]
    return [
        (first, *others) for first in range(total, -1, -1) for others in _counts(total - first, terms - 1)
    ]


def _difference(base: DualEncoder, member: DualEncoder) -> str:
    """Why a member cannot answer beside the base; empty: it can."""
    for model, whose in ((base, "the base"), (member, "it")):
        if not model.can_be_trained or model.family == "open_clip" or model.image_preprocessor.patch:
            return f"{whose} is of family {model.family}, of which no ensemble is made: name another model"
        if model.scorer or model.captioner or model.space or model.frames > 1 or len(model.added_modules):
            return (
                f"{whose} has more than the weights of its family, which an ensemble would lose: leave it out"
            )
    if member.family != base.family:
        return f"it is of family {member.family} and the base of {base.family}: name one of the same family"
    if member.image_preprocessor != base.image_preprocessor:
        return (
            "it prepares images in another way than the base: name one with the same size and normalization"
        )
    if member.text_tokenizer.fingerprint() != base.text_tokenizer.fingerprint():
        return "its tokenizer is not that of the base: name one with the same vocabulary and length of texts"
    return ""
