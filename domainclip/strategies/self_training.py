"""No caption and no label is read: the base names the class of each image, and learns from these answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from domainclip.errors import DataError
from domainclip.strategies.base import Strategy

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from domainclip.data.cards import Prompts
    from domainclip.data.interfaces import Encoder
    from domainclip.models.dual_encoder import DualEncoder

_MAX_ITERATIONS = 1000  # of the propagation, which has converged long before


@dataclass(frozen=True, kw_only=True)
class SelfTraining(Strategy):
    """Training on pseudo-labels, where two ways of naming the class of an image agree. [arXiv:2308.03793]

    ReCLIP. What the embeddings of all classes have in common distinguishes none of them: with T = U S Vᵀ the
    class embeddings, images and classes are projected onto the right singular vectors but the first; images
    and classes then lose their mean, the gap between the towers, and have unit length. One way is the nearest
    class there. The other is label propagation from the classes over a graph: each node (image or class) is
    joined to its `neighbours` nearest by max(cos, 0)^`power`, A is made symmetric as W = A + Aᵀ, normalised
    as S = D^−½ W D^−½, and F = (1 − σ)(I − σ S)^−1 Y with σ the `spread`, by scikit-learn's LabelSpreading.

    Images on whose class the two agree are trained on, with the prompts of that class as captions and the
    class as label. The other images, and all captions and labels of the training split, are not used. The
    layer norms learn, as in the paper, or all weights. Validation during training, where the recipe asks for
    it, reads labels. The search for neighbours is quadratic in the images.

    Differs: the paper trains a copy of the model for each tower, labels anew in every epoch with both, trains
    on the labels that they share, and subtracts no mean; here one model learns, the two ways are those above,
    and a further round is a run whose base is this one.
    """

    citation: ClassVar[str] = "arXiv:2308.03793"
    relabels: ClassVar[bool] = True
    default_learning_rate: ClassVar[float] = 1e-4
    max_learning_rate: ClassVar[float | None] = 1e-2

    weights: Literal["norms", "all"] = "norms"  # which weights learn: the layer norms of both towers, or all
    neighbours: Annotated[int, Field(ge=1)] = 20  # that a node of the graph is joined to
    power: Annotated[float, Field(gt=0)] = 3.0  # exponent of the cosines in the graph
    # Share of an answer that comes from the neighbours, in each step of the propagation.
    spread: Annotated[float, Field(gt=0, lt=1)] = 0.99
    train_logit_scale: bool = False  # whether scale and bias learn too

    def learning_rates(self, model: DualEncoder) -> dict[str, float]:
        """1 for the layer norms, or for all weights."""
        scale = ("(scale|bias)/.*", float(self.train_logit_scale))
        if self.weights == "all":
            return model.set_trainable([scale, (".*", 1.0)])
        norms = "|".join(map(re.escape, model.norm_weights()))
        return model.set_trainable([(norms, 1.0), scale, (".*", 0.0)])

    def relabelled(self, items: Dataset, base: Encoder, classes: Mapping[str, Prompts]) -> Dataset:
        """The items with a pseudo-label: it is their label, and the prompts of the class their captions.

        Raises: DataError when fewer than two classes are left, so that nothing can be contrasted.
        """
        import numpy as np

        names, prompts = list(classes), [classes[name].positive for name in classes]
        texts = _unit(np.stack([base.texts(of_class).mean(axis=0) for of_class in prompts]))
        labels, agree = self.pseudo_labels(texts, base.images(items))
        rows = np.flatnonzero(agree)
        if len(set(labels[rows])) < 2:
            raise DataError(
                f"strategy.self_training: of {len(items)} training images, {len(rows)} have a pseudo-label, "
                "of fewer than two classes: the base distinguishes none: name more distinct classes, or "
                "another base"
            )
        chosen = labels[rows]

        def renamed(_: str, at: int) -> dict[str, list[str]]:
            text = prompts[chosen[at]]
            return {"texts": text, "language": [""] * len(text), "labels": [names[chosen[at]]]}

        chosen_items = items.select(rows, keep_in_memory=True)
        return chosen_items.map(
            renamed, with_indices=True, input_columns=["id"], features=items.features, keep_in_memory=True
        )

    def pseudo_labels(self, texts: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) class of each image by propagation, and (n,) whether the nearest class is the same one.

        Of embeddings of classes (c, d) and images (n, d).
        """
        import numpy as np

        directions = np.linalg.svd(texts.astype(np.float64), full_matrices=False)[2][1:]
        classes, items = _centred(texts @ directions.T), _centred(images @ directions.T)
        nearest = (items @ classes.T).argmax(axis=1)
        propagated = self._propagate(classes, items)
        return propagated, propagated == nearest

    def _propagate(self, classes: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(n,) the class of each image, from projected embeddings; −1 where no class reaches it."""
        import numpy as np
        from scipy.sparse import csr_matrix
        from sklearn.neighbors import NearestNeighbors
        from sklearn.semi_supervised import LabelSpreading

        nodes = np.concatenate([classes, items])
        count = min(self.neighbours, len(nodes) - 1)
        distances, near = NearestNeighbors(n_neighbors=count, metric="cosine").fit(nodes).kneighbors()
        weights = np.maximum(1.0 - distances, 0.0) ** self.power
        starts = np.arange(0, near.size + 1, count)
        graph = csr_matrix((weights.ravel(), near.ravel(), starts), shape=(len(nodes), len(nodes)))
        graph = graph + graph.T
        spreading = LabelSpreading(kernel=lambda *_: graph, alpha=self.spread, max_iter=_MAX_ITERATIONS)
        known = np.concatenate([np.arange(len(classes)), np.full(len(items), -1)])
        answers = spreading.fit(nodes, known).label_distributions_[len(classes) :]
        labels: np.ndarray = np.where(answers.sum(axis=1) > 0, answers.argmax(axis=1), -1)
        return labels


def _centred(rows: np.ndarray) -> np.ndarray:
    return _unit(rows - rows.mean(axis=0))


def _unit(rows: np.ndarray) -> np.ndarray:
    unit: np.ndarray = rows / (rows**2).sum(axis=1, keepdims=True).clip(min=1e-24) ** 0.5
    return unit
