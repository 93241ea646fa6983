"""Class questions: each class of the corpus is a yes-or-no question about the image, apart from all others.

Legend: b pairs, r those of this process, k further texts of a pair, q = k / 2 questions, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from domainclip import seeding
from domainclip.data.text.negation import names_normal_class
from domainclip.data.text.training_pair import TrainingPair
from domainclip.errors import RecipeError
from domainclip.objectives.base import Objective, Views


@dataclass(frozen=True, kw_only=True)
class ClassQuestions(Objective):
    """1/q Σ_c log(1 + exp(−s (x · a_c − x · w_c))): the right answer a_c to a question, the wrong one w_c.

    The answers are a positive and a negative prompt of the class, as the card has them under `classes`; for a
    class without negative prompts, `negative` makes some of its name. Zero-shot classification asks the same:
    softmax of s x · positive and s x · negative, class by class. A loss that matches an image with one label
    among others teaches classes against each other, and a finding that occurs beside another is unlearned;
    here no class is a negative of another.
    Classes marked as unknown (−1) are left out, or taken as absent or present, the policies of CheXpert
    [arXiv:1901.07031]. The normal class ("No Finding") has no opposite: it is asked only where the card has
    its negative prompts. A pair is asked about all of its classes and a sample of the others, up to
    `per_pair` questions, drawn anew in each epoch; one without labels about none, unless each class has its
    own column. Differs from the paper, which learns contexts in the place of prompts, pools regions and
    weighs errors asymmetrically. Cost: two texts a class and prompt at most: equal texts are encoded once.
    [arXiv:2206.09541]
    """

    citation: ClassVar[str] = "arXiv:2206.09541"
    needs: ClassVar[frozenset[str]] = frozenset({"extra_text"})
    extra_texts_remedy: ClassVar[str] = (
        "name the classes under classes of the card, or templates, and the labels under columns.labels"
    )

    # Negative prompts of a class without its own; {} is its name.
    negative: list[str] = field(default_factory=lambda: ["no {}"])
    per_pair: Annotated[int, Field(ge=1, le=64)] = 16  # questions
    unknown: Literal["ignore", "absent", "present"] = "ignore"  # how a class marked as unknown (-1) counts

    def __post_init__(self) -> None:
        for template in self.negative:
            if template.count("{}") != 1:
                raise RecipeError(
                    f'objectives.class_questions.negative: "{template}" must hold {{}} once, for the class'
                )

    def extra_texts(self, pair: TrainingPair) -> list[str]:
        """The right and the wrong answer to each question, one after the other."""
        present, unknown = set(pair.labels), set(pair.meta.get("unknown_labels", ()))
        if self.unknown == "present":
            present |= unknown
        if self.unknown != "ignore":
            unknown = set()
        asked = [name for name in pair.classes if name not in unknown and self._negatives(pair, name)]
        # All of its classes first, then a sample of the others.
        asked.sort(key=lambda name: (name not in present, seeding.stable(pair.seed, "question", name)))
        answers = []
        for name in asked[: self.per_pair]:
            yes = _drawn(pair.classes[name].positive, pair, name)
            no = _drawn(self._negatives(pair, name), pair, name)
            answers += [yes, no] if name in present else [no, yes]
        return answers

    def _negatives(self, pair: TrainingPair, name: str) -> Sequence[str]:
        if written := pair.classes[name].negative:
            return written
        return [] if names_normal_class(name) else [text.replace("{}", name) for text in self.negative]

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process, ln 2 at chance; a pair without questions counts 0."""
        assert views.extra_text is not None  # the run fills what `needs` names
        assert views.extra_text_mask is not None
        local = views.local_slice
        cosines = (views.extra_text[local] @ views.image[local][:, :, None])[..., 0]  # (r, k)
        right, wrong = cosines[:, 0::2][:, : cosines.shape[1] // 2], cosines[:, 1::2]
        exists = views.extra_text_mask[local][:, 1::2]  # (r, q)
        nats = softplus(-views.scale * (right - wrong)).masked_fill(~exists, 0.0)
        return (nats.sum(dim=1) / exists.sum(dim=1).clamp_min(1)).mean()


def _drawn(prompts: Sequence[str], pair: TrainingPair, name: str) -> str:
    return min(prompts, key=lambda text: seeding.stable(pair.seed, name, text))
