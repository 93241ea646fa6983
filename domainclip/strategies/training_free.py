"""No weight learns: features of the training items correct the class scores of the frozen base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from domainclip.strategies.base import Strategy, Support, SupportNeeds

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from domainclip.models.dual_encoder import DualEncoder
    from domainclip.models.support_scorer import SupportScorer

_Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True)
class TrainingFree(Strategy):
    """score_c(x) = x · w_c + α E_c(x), with w_c of the prompts and E of support items. [arXiv:2207.09519]

    class_means: E_c = x · μ_c, the mean image embedding of the class, at unit length [arXiv:1703.05175];
    cache: E_c = mean of exp(−β (1 − x · k)) over the support images k of the class: Tip-Adapter;
    kl: E_c = mean of exp(−β KL(p(x) ‖ p(k))), p the softmax over the classes: TIP-X [arXiv:2211.16198];
    captions: E_c = e^(H(x) − H(t)) t · w_c, with t the mean of the `neighbours` captions of the training
    split that are nearest to x, and H the entropy of the softmax over the classes: X-MoRe [arXiv:2308.15273].
    Where several classes may hold together, the mean over the images without the class is subtracted.

    α and β are those with the best macro recall (macro AUROC where several classes may hold together) on the
    validation split; α = 0, the base, where none is better. The scorer is saved beside the weights, which are
    those of the base (scorer.json, scorer.safetensors), and every command of domainclip uses it for these
    classes; other classes, retrieval and embeddings stay those of the base. Other libraries do not read it.

    Differs: classes have unequal numbers of items, so affinities are means where Tip-Adapter takes sums (its
    α is the scale times ours over the shots); TIP-X maps divergences to the range of the affinities of a
    whole set, ours are a function of one image; X-MoRe weights both modalities, we divide by the weight of
    the image. The classes of the support are its labels; SuS-X retrieves or generates images by class name.
    ComCLIP [arXiv:2211.13854], which matches subimages of subject, object and predicate with these words, is
    not offered: it needs a segmenter and a parser.
    """

    citation: ClassVar[str] = "arXiv:2207.09519"

    form: Literal["class_means", "cache", "kl", "captions"] = "class_means"  # how the evidence is computed
    # Support images of each class; null: all. Not of the form captions.
    shots: Annotated[int, Field(ge=1)] | None = None
    neighbours: Annotated[int, Field(ge=1)] = 16  # captions that are retrieved for an image
    # Weights of the evidence that are tried, besides 0.
    alphas: tuple[_Positive, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    # Sharpness of the affinities that is tried, of the forms cache and kl.
    betas: tuple[_Positive, ...] = (1.0, 3.0, 10.0, 30.0, 100.0)

    @property
    def support(self) -> SupportNeeds:
        """Labelled images, or captions."""
        of_captions = self.form == "captions"
        return SupportNeeds(
            "captions" if of_captions else "images",
            None if of_captions else self.shots,
            self.alphas,
            multi_label=not of_captions,  # whose entropy needs classes that exclude each other
        )

    def learning_rates(self, model: DualEncoder) -> dict[str, float]:
        """All weights are frozen."""
        return model.set_trainable([(".*", 0.0)])

    def class_scorers(self, support: Support) -> Sequence[SupportScorer]:
        """One for each β; one of the forms that have none."""
        import numpy as np

        from domainclip.models.support_scorer import ScorerSettings, SupportScorer

        shares = _shares(support)
        features = support.features
        if self.form == "class_means":
            features, shares = _class_means(features, shares), shares[:0]
        betas = self.betas if self.form in ("cache", "kl") else (1.0,)
        return [
            SupportScorer(
                ScorerSettings(
                    form=self.form,
                    classes=tuple(support.classes),
                    scale=support.scale,
                    beta=beta,
                    neighbours=self.neighbours,
                ),
                features.astype(np.float32),
                shares.astype(np.float32),
                support.class_texts.astype(np.float32),
            )
            for beta in betas
        ]


def _shares(support: Support) -> np.ndarray:
    """(s, c) the share of each item in the mean over its class, less that in the mean over the others."""
    held = support.labels == 1
    shares: np.ndarray = held / held.sum(axis=0).clip(min=1)
    if support.multi_label:
        absent = support.labels == 0
        shares = shares - absent / absent.sum(axis=0).clip(min=1)
    return shares


def _class_means(features: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(c, d) the means of the classes at unit length, less those of the other images where these count."""
    import numpy as np

    with_class, without = shares.clip(min=0).T @ features, (-shares).clip(min=0).T @ features
    unit = [
        rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-12) for rows in (with_class, without)
    ]
    means: np.ndarray = unit[0] - unit[1]
    return means
