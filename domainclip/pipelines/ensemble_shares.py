"""After hop 7: the shares of the members of an ensemble, chosen on the validation split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from domainclip.data.cards import Prompts
from domainclip.distributed.phases import phase
from domainclip.evaluation.encoder import CachedEncoder, encode_images
from domainclip.evaluation.metrics import zero_shot_scores
from domainclip.evaluation.metrics.labels import label_matrix
from domainclip.evaluation.protocol import Protocol
from domainclip.evaluation.shares_choice import ReweightedEncoder, Shares, SharesChoice, choose_shares
from domainclip.models.ensemble import EnsembleModel
from domainclip.pipelines.inputs import Inputs
from domainclip.training.run_context import RunContext
from domainclip.training.weight_interpolation import AdaptedModel


@phase("choosing the shares of the members")
def fit_shares(adapted: AdaptedModel, inputs: Inputs, protocol: Protocol, run: RunContext) -> AdaptedModel:
    """The ensemble with the shares that are best on the validation split; unchanged for other strategies.

    A corpus without classes has nothing to choose by: the shares stay equal.
    """
    ensemble = adapted.model.hf_base
    if not inputs.components.strategy.shares:
        return adapted
    assert isinstance(ensemble, EnsembleModel)  # which such a strategy has built
    choice = _choose(adapted.encoder, ensemble, inputs)
    ensemble.set_shares(choice.shares)
    run.say(f"shares of the base and the members: {choice.facts()['shares']}")
    return replace(adapted, encoder=CachedEncoder(adapted.model, protocol.embeddings), shares=choice)


def _choose(encoder: CachedEncoder, ensemble: EnsembleModel, inputs: Inputs) -> SharesChoice:
    tried, corpus = inputs.components.strategy.shares, inputs.corpus
    names, multi_label = list(corpus.classes), corpus.card.multi_label
    items = encode_images([encoder], corpus.splits["validation"])
    labels = label_matrix(items, names)
    if len(names) < 2 or not (labels == 1).any():
        members = len(ensemble.models)
        return SharesChoice((1 / members,) * members, len(tried))
    classes = corpus.classes
    if not multi_label:  # as zero-shot classification scores them
        classes = {name: Prompts(positive=prompts.positive) for name, prompts in classes.items()}
    equal = ensemble.roots_of([1 / len(ensemble.models)] * len(ensemble.models))

    def scores(shares: Shares) -> np.ndarray:
        factors = np.repeat(ensemble.roots_of(shares) / equal, ensemble.config.widths)
        return zero_shot_scores.class_margins(ReweightedEncoder(encoder, factors), items, classes)

    return choose_shares(tried, scores, labels, multi_label)
