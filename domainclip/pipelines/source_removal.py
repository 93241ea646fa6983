"""After hop 7: remove the direction of the source from the embeddings of images, fitted on training items."""

from __future__ import annotations

from dataclasses import replace

from domainclip.distributed.phases import phase
from domainclip.errors import DataError
from domainclip.evaluation.encoder import CachedEncoder, encode_images
from domainclip.evaluation.protocol import Protocol
from domainclip.models.concept_erasure import erasure, map_image_embeddings
from domainclip.pipelines.inputs import Inputs
from domainclip.pipelines.source_fit import fit_items
from domainclip.training.run_context import RunContext
from domainclip.training.weight_interpolation import AdaptedModel, RemovedSource


@phase("removing the direction of the source")
def remove_source(adapted: AdaptedModel, inputs: Inputs, protocol: Protocol, run: RunContext) -> AdaptedModel:
    """The model whose image embeddings have no mean that depends on the source; unchanged without the key.

    Raises: DataError when no training image can be read.
    """
    settings = inputs.recipe.source_removal
    if settings is None:
        return adapted
    items = encode_images([adapted.encoder], inputs.train_items.items)
    if not len(items):
        raise DataError("source_removal: no training image can be read: check the files")
    fit = fit_items(settings, items)
    rows = adapted.encoder.images(items)[fit.rows]
    matrix, directions = erasure(rows, fit.concept, fit.strata, settings.shrinkage)
    removed = RemovedSource(directions, fit.sources, len(fit.rows), adapted.trained.setup.weight_counts)
    map_image_embeddings(adapted.model, matrix)
    run.say(f"source removal: {removed.facts()['source_removal']}")
    encoder = CachedEncoder(adapted.model, protocol.embeddings)
    return replace(adapted, encoder=encoder, removed_source=removed)
