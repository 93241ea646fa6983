"""What the objectives of a job ask for beside the pairs: looked up before training, computed once."""

from __future__ import annotations

import json
from math import isnan

from domainclip.components import WeightedObjectives
from domainclip.data.batching.extras import ExtraSpec, to_number
from domainclip.data.batching.pairs import Pairs
from domainclip.data.corpus import Corpus
from domainclip.errors import DataError, RecipeError
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.layers import Modality

_PARTS: tuple[Modality, ...] = ("image", "text")
_LOOKED_AT = 1000  # pairs, spread evenly, whose further texts are made before training to count them


def pair_extras(terms: WeightedObjectives, corpus: Corpus) -> ExtraSpec:
    """What is asked of every pair.

    Raises: DataError when the corpus does not have it.
    """
    columns = {
        name: inputs.value_column for name, inputs in terms.inputs.items() if inputs.value_column is not None
    }
    for name, column in columns.items():
        _require_numbers(f"objectives.{name}.column", column, corpus)
    classes = _classes(corpus) if "labels" in terms.needs else ()
    return ExtraSpec(terms.extra_texts, columns, classes, "image_2" in terms.needs)


def _require_numbers(key: str, column: str, corpus: Corpus) -> None:
    rows = corpus.splits["train"]["meta"][:]
    if all(isnan(to_number(json.loads(row).get(column))) for row in rows):
        raise DataError(
            f'{key}: no training item of corpus {corpus.card.name} has a number under "{column}" in its '
            "meta: name a column that has, and list it under columns.meta of the card"
        )


def _classes(corpus: Corpus) -> tuple[str, ...]:
    found = sorted({label for row in corpus.splits["train"]["labels"][:] for label in row})
    if not found:
        raise DataError(
            f"objectives: one of them needs labels, and no training item of corpus {corpus.card.name} has "
            "any: name columns.labels in the card"
        )
    return tuple(found)


def check_objectives(terms: WeightedObjectives, base: DualEncoder, stream: bool) -> None:
    """Refuses, before anything is trained, what this base or a stream cannot give.

    Raises: RecipeError with the objective and the way out.
    """
    if len(third := [name for name, inputs in terms.inputs.items() if inputs.third_tower is not None]) > 1:
        raise RecipeError(
            f"objectives: {third[0]} and {third[1]} both have a third tower, and a run has one: leave one out"
        )
    for name, objective in terms.by_name.items():
        objective.check_model(base.width)
        for part in _PARTS:
            if f"{part}_tokens" in objective.needs and not base.has_token_embeddings(part):
                raise RecipeError(
                    f"objectives.{name}: family {base.family} gives no {part} tokens: leave it out, or take "
                    "a base of another family"
                )
        if stream and objective.needs & {"labels", "teachers", "base_image", "third_tower"}:
            raise RecipeError(
                f"objectives.{name}: needs all training pairs at once, and a stream shows a few: leave it "
                "out, or store the corpus with domainclip data prepare and train on that"
            )


def count_extra_texts(pairs: Pairs) -> tuple[str, ...]:
    """A note for each objective that makes further texts: how many pairs have any.

    Raises: DataError when none has.
    """
    if pairs.is_streamed:  # a stream is never in memory as a whole
        return ()
    notes = []
    some = range(0, len(pairs), max(1, len(pairs) // _LOOKED_AT))
    for name in pairs.extra_spec.texts:
        having = sum(_says(pairs, index, name) for index in some)
        if not having and not any(_says(pairs, index, name) for index in range(len(pairs))):
            raise DataError(
                f"objectives.{name}: none of {len(pairs)} training pairs has a text that it asks for: list "
                "the column that holds some under columns.meta of the card, and name it here (rewrites: "
                "under captions.rewrites of the card), or leave it out"
            )
        notes.append(f"objectives.{name}: {having} of {len(some)} training pairs have texts for it")
    return tuple(notes)


def _says(pairs: Pairs, index: int, name: str) -> bool:
    more = pairs.extra_columns.extras_of(index, pairs.texts[index][0], pairs.seed, 0)
    return more is not None and bool(more.texts[name])


_OF_A_PICTURE = {"image_2", "image_tokens", "base_image", "teachers", "third_tower"}


def refuse_pictures(terms: WeightedObjectives, base: DualEncoder, looks: bool) -> None:
    """Refuses objectives that look at the one picture of an item, where there are several, or none.

    Raises: RecipeError with the objective and the way out.
    """
    if looks and base.frames == 1:
        return
    several = "strategy.multi_frame shows several pictures of an item"
    why = several if looks else "strategy.prompt_learning with train_on: text looks at no picture"
    for name, objective in terms.by_name.items():
        if found := sorted(objective.needs & _OF_A_PICTURE):
            raise RecipeError(f"objectives.{name}: needs {found[0]}, and {why}: leave one of the two out")
