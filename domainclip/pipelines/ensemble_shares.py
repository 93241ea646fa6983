"""After hop 7: the shares of the members of an ensemble, chosen on the validation split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from domainclip.distributed.phases import phase
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.metrics import zero_shot_scores
from domainclip.evaluation.protocol import Protocol
from domainclip.evaluation.shares_choice import ReweightedEncoder, Shares, SharesChoice, choose_shares
from domainclip.models.ensemble import EnsembleModel
from domainclip.pipelines.inputs import Inputs
from domainclip.pipelines.labelled_validation import labelled_validation
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
    tried, members = inputs.components.strategy.shares, len(ensemble.models)
    equal = (1 / members,) * members
    if not len(inputs.corpus.splits["validation"]):
        return SharesChoice(equal, len(tried))
    validation = labelled_validation(encoder, inputs.corpus)
    if not validation.can_choose:
        return SharesChoice(equal, len(tried))
    start = ensemble.roots_of(equal)

    def scores(shares: Shares) -> np.ndarray:
        factors = np.repeat(ensemble.roots_of(shares) / start, ensemble.config.widths)
        reweighted = ReweightedEncoder(encoder, factors)
        return zero_shot_scores.class_margins(reweighted, validation.items, validation.classes)

    return choose_shares(tried, scores, validation.labels, validation.multi_label)
