"""After hop 7: the class scorer of a strategy that trains no weight, chosen on the validation split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from datasets import Dataset

from domainclip import seeding
from domainclip.data.corpus import Corpus
from domainclip.distributed.phases import phase
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.metrics import zero_shot_scores
from domainclip.evaluation.metrics.labels import label_matrix
from domainclip.evaluation.scorer_choice import choose_scorer
from domainclip.pipelines.inputs import Inputs
from domainclip.pipelines.labelled_validation import labelled_validation, readable_items
from domainclip.strategies.base import Support, SupportNeeds, SupportPairs
from domainclip.training.run_context import RunContext
from domainclip.training.weight_interpolation import AdaptedModel


@phase("computing class scores from support items")
def fit_class_scorer(adapted: AdaptedModel, inputs: Inputs, run: RunContext) -> AdaptedModel:
    """The model with the class scorer that its strategy defines; unchanged where weights are trained.

    Raises: DataError when no image of the support or of the validation split can be read.
    """
    strategy, corpus = inputs.components.strategy, inputs.corpus
    if strategy.support is None:
        return adapted
    encoder = adapted.encoder
    support = _collect(encoder, corpus, inputs.train_items.items, strategy.support, inputs.recipe.train.seed)
    validation = labelled_validation(encoder, corpus)
    choice = choose_scorer(
        strategy.class_scorers(support),
        strategy.support.alphas,
        encoder.images(validation.items),
        zero_shot_scores.class_margins(encoder, validation.items, validation.classes),
        validation.labels,
        validation.multi_label,
    )
    adapted.model.scorer = choice.scorer
    run.say(f"class scorer: {choice.facts()['class_scorer']}")
    return replace(adapted, scorer=choice)


def _collect(
    encoder: CachedEncoder, corpus: Corpus, items: Dataset, needs: SupportNeeds, seed: int
) -> Support:
    names = list(corpus.classes)
    texts = zero_shot_scores.class_vectors(encoder, [corpus.classes[name].positive for name in names])
    labels, pairs = np.zeros((0, len(names))), None
    if needs.features == "captions":
        captions = sorted({text for texts_of_item in items["texts"][:] for text in texts_of_item})
        features = encoder.texts(captions)
    elif needs.features == "pairs":
        features, pairs = _support_pairs(encoder, items, needs.shots, seed)
    else:
        rows = _support_rows(items, label_matrix(items, names), needs.shots, seed)
        items = readable_items(encoder, items.select(rows, keep_in_memory=True), "training")
        features, labels = encoder.images(items), label_matrix(items, names)
    prompts, multi_label = texts.astype(np.float32), corpus.card.multi_label
    return Support(names, features, labels, prompts, encoder.scale, multi_label, pairs, seed)


def _support_pairs(
    encoder: CachedEncoder, items: Dataset, count: int | None, seed: int
) -> tuple[np.ndarray, SupportPairs]:
    """Images of the items with a caption, at most `count` drawn by their ids, and their first captions."""
    rows = [row for row, texts in enumerate(items["texts"][:]) if any(text.strip() for text in texts)]
    if count is not None and count < len(rows):
        ids = items.select_columns("id").select(rows)["id"][:]
        rows = sorted(rows[at] for at in seeding.sample(ids, count, "support pairs", seed))
    items = readable_items(encoder, items.select(rows, keep_in_memory=True), "training")
    captions = [next(text for text in texts if text.strip()) for texts in items["texts"][:]]
    caption, group = (np.unique(values, return_inverse=True)[1] for values in (captions, items["group"][:]))
    return encoder.images(items), SupportPairs(encoder.texts(captions), group, caption)


def _support_rows(items: Dataset, labels: np.ndarray, shots: int | None, seed: int) -> list[int]:
    """The rows of the labelled items, of each class at most `shots`, drawn by their ids."""
    if shots is None:
        return [int(row) for row in np.flatnonzero((labels == 1).any(axis=1))]
    chosen: set[int] = set()
    for column in labels.T:
        rows = np.flatnonzero(column == 1)
        ids = [items[int(row)]["id"] for row in rows]
        chosen |= {int(rows[i]) for i in seeding.sample(ids, shots, "support", seed)}
    return sorted(chosen)
