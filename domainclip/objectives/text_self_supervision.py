"""Text self-supervision: two damaged copies of a caption are positives of each other.

Legend: b pairs, r those of this process, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from domainclip import seeding
from domainclip.data.text.training_pair import TrainingPair
from domainclip.data.text.words import split_words
from domainclip.objectives.base import Negatives, Objective, Taught, Views
from domainclip.objectives.losses.extra_texts import nt_xent

Damage = Literal["words", "span", "order"]
_ATTEMPTS = 8
_MIN_WORDS = 4  # with fewer, a copy without one word means something else


@dataclass(frozen=True, kw_only=True)
class TextSelfSupervision(Objective):
    """1/b Σ_i ½ [CE(u_i → v_i) + CE(v_i → u_i)] among both copies u, v of all captions (NT-Xent).

    Each copy is damaged in one way, drawn by the seed of the pair: single `words` are removed, a `span` of
    them, or two spans are exchanged (`order`), a `share` of the words each time. Captions of fewer than four
    words have no copies (two characters stand for a word in scripts without spaces); they count 0, and are no
    negatives. Dropout as noise, as in SimCSE, is not used: CLIP has no dropout, and equal texts are encoded
    once. Cost: two further texts per pair. [arXiv:2012.15466]
    """

    citation: ClassVar[str] = "arXiv:2012.15466"
    negatives: ClassVar[Negatives] = "other_groups"
    needs: ClassVar[frozenset[str]] = frozenset({"extra_text"})
    teaches: ClassVar[frozenset[Taught]] = frozenset({"text"})

    # How a caption is changed: words or a span removed, or two spans exchanged.
    damage: Annotated[list[Damage], Field(min_length=1)] = field(
        default_factory=lambda: ["words", "span", "order"]
    )
    share: Annotated[float, Field(gt=0, le=0.5)] = 0.2  # of the words that are removed or exchanged
    # The cosines are divided by it; lower: the nearest texts count more.
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.1

    def extra_texts(self, pair: TrainingPair) -> list[str]:
        """Two copies, neither of them whole, nor equal to the other; or none."""
        words, glue = split_words(pair.text, None)
        if len(words) < _MIN_WORDS:
            return []
        copies: list[str] = []
        for at in range(_ATTEMPTS):
            damage = self.damage[seeding.stable(pair.seed, "damage", at) % len(self.damage)]
            copy = glue.join(_damaged(words, damage, self.share, seeding.stable(pair.seed, "copy", at)))
            if copy not in (glue.join(words), pair.text, *copies):
                copies.append(copy)
            if len(copies) == 2:
                return copies
        return []

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        assert views.extra_text is not None  # the run fills what `needs` names
        assert views.extra_text_mask is not None
        # A batch in which nobody has two copies may come without a second column.
        exists = views.extra_text_mask.sum(dim=1) == 2
        return nt_xent(
            views, views.extra_text[:, 0], views.extra_text[:, -1], exists, self.temperature
        ).mean()


def _damaged(words: Sequence[str], damage: Damage, share: float, seed: int) -> list[str]:
    """The words with a share of them left out or moved, at least one and never more than half."""
    n = len(words)
    length = min(max(1, round(share * n)), n // 2)
    if damage == "words":
        removed = set(sorted(range(n), key=lambda at: seeding.stable(seed, at))[:length])
        return [word for at, word in enumerate(words) if at not in removed]
    if damage == "span":
        start = seeding.stable(seed, "span") % (n - length + 1)
        return [*words[:start], *words[start + length :]]
    first = seeding.stable(seed, "first") % (n - 2 * length + 1)
    second = first + length + seeding.stable(seed, "second") % (n - 2 * length - first + 1)
    a, b = slice(first, first + length), slice(second, second + length)
    return [*words[:first], *words[b], *words[a.stop : second], *words[a], *words[b.stop :]]
