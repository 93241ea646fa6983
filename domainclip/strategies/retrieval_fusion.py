"""Embeddings of the frozen base are refined with what they retrieve from the training pairs: RECO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from domainclip.errors import DataError, RecipeError
from domainclip.strategies.base import Strategy, Support, SupportNeeds

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder
    from domainclip.models.fusion_scorer import FusionScorer
    from domainclip.models.fusion_training import FusionData, FusionLayers

_Positive = Annotated[float, Field(gt=0)]
_Steps = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class RetrievalFusion(Strategy):
    """score_c(x) = x · w_c + α φ(x, T_x) · ψ(w_c, X_c): RECO. [arXiv:2306.07196]

    T_x are the captions of the k training images that are nearest to the image x, X_c the images of the k
    captions that are nearest to the prompts w_c; φ and ψ are one transformer layer each, which begins as the
    identity. They are trained on the stored embeddings of the training pairs by the mean of three contrastive
    losses: refined images with refined captions, and either with the other side as it was. A pair retrieves
    nothing of its group, which tests cannot retrieve either; equal captions are not each other's negatives.
    Both towers are frozen. Steps and α are those with the best macro recall (macro AUROC where several
    classes may hold together) on the validation split; α = 0, the base, where none is better. Layer and
    memory are saved beside the weights (scorer.json, scorer.safetensors), and every command of domainclip
    uses them for these classes.

    Differs: the memory is the training split, where RECO has a web corpus; the temperature is that of the
    base; the scores of the base count beside the refined ones; and classes alone are refined: retrieval and
    embeddings stay those of the base, since a refined embedding depends on the whole memory.
    """

    citation: ClassVar[str] = "arXiv:2306.07196"

    neighbours: Annotated[int, Field(ge=1)] = 10  # k: what is retrieved for an image, or for the prompts
    heads: Annotated[int, Field(ge=1)] = 8  # of each layer; they share the width of the embeddings equally
    # Steps after which the layers are tried.
    steps: Annotated[tuple[_Steps, ...], Field(min_length=1)] = (100, 300)
    batch_size: Annotated[int, Field(ge=2)] = 256  # pairs of a step
    rate: _Positive = 1e-3  # learning rate of the layers
    # Training pairs of the memory, drawn by their ids; null: all.
    max_items: Annotated[int, Field(ge=2)] | None = 20_000
    # Weights of the refined scores that are tried, besides 0.
    alphas: Annotated[tuple[_Positive, ...], Field(min_length=1)] = (0.1, 0.3, 1.0, 3.0, 10.0)

    @property
    def support(self) -> SupportNeeds:
        """Images with their captions."""
        return SupportNeeds("pairs", self.max_items, self.alphas)

    def learning_rates(self, model: DualEncoder) -> dict[str, float]:
        """All weights of the model are frozen.

        Raises: RecipeError for a width that the heads cannot share, and for a base with a hyperbolic space.
        """
        if model.space is not None:
            raise RecipeError(
                "strategy.retrieval_fusion: the base has a hyperbolic space, whose embeddings the layers "
                "cannot refine: name the base of that run, or choose training_free"
            )
        if model.width % self.heads:
            fewer = max(heads for heads in range(1, self.heads) if model.width % heads == 0)
            raise RecipeError(
                f"strategy.retrieval_fusion.heads: {self.heads} heads cannot share the width of the "
                f"embeddings, {model.width}: take {fewer}"
            )
        return model.set_trainable([(".*", 0.0)])

    def class_scorers(self, support: Support) -> Sequence[FusionScorer]:
        """One for each number of steps.

        Raises: DataError where all training pairs are of one group.
        """
        from domainclip.models.fusion_training import FusionData, FusionTraining, train_layers

        pairs = support.pairs
        assert pairs is not None  # the run fills what `support` names
        data = FusionData(support.features, pairs.texts, pairs.group, pairs.caption)
        training = FusionTraining(
            neighbours=self.neighbours,
            heads=self.heads,
            steps=sorted(set(self.steps)),
            batch_size=self.batch_size,
            rate=self.rate,
            scale=support.scale,
            seed=support.seed,
        )
        try:
            layers = train_layers(data, training)
        except ValueError:
            raise DataError(
                "strategy.retrieval_fusion: all training pairs with a caption are of one group, so that none "
                "has another one to retrieve: check corpus.columns.group"
            ) from None
        return [self._scorer(support, data, one) for one in layers]

    def _scorer(self, support: Support, data: FusionData, layers: FusionLayers) -> FusionScorer:
        import numpy as np

        from domainclip.models.fusion_scorer import FusionScorer, FusionSettings, refined_rows

        texts = refined_rows(
            layers.text, support.class_texts, data.texts, data.images, self.neighbours, self.heads
        )
        settings = FusionSettings(
            classes=tuple(support.classes), neighbours=self.neighbours, heads=self.heads, steps=layers.steps
        )
        image = {name: weight.numpy() for name, weight in layers.image.items()}
        return FusionScorer(settings, data.images, data.texts, texts.astype(np.float32), image)
