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
from domainclip.data.files.row_labels import UNKNOWN_LABELS
from domainclip.data.text.negation import names_normal_class
from domainclip.data.text.training_pair import TrainingPair
from domainclip.errors import RecipeError
from domainclip.objectives.base import Objective, Views


@dataclass(frozen=True, kw_only=True)
class ClassQuestions(Objective):
    """1/q Σ_c log(1 + exp(−s (x · a_c − x · w_c))): the right answer a_c to a question, the wrong one w_c.

    The answers are a positive and a negative prompt of the class, as the card has them under `classes`. A
    class without negative prompts is asked in one of the `forms`, drawn in each epoch: both answers have the
    same form, so that nothing but the negation and the class tells them apart. Zero-shot classification asks
    the same: softmax of s x · positive and s x · negative, class by class. A loss that matches an image with
    one label among others teaches classes against each other, and a finding that occurs beside another is
    unlearned; here no class is a negative of another.
    Classes marked as unknown (−1) are left out, or taken as absent or present, the policies of CheXpert
    [arXiv:1901.07031]. The normal class ("No Finding") has no opposite: it is asked only where the card has
    its negative prompts. A pair is asked about its classes and a sample of the others, drawn anew in each
    epoch: `absent` for each of its classes, or in all where it has none of them, and at most `per_pair`
    questions. Asked about all others, most answers are no, and one difference between positive and negative
    prompts gives them, the same for every class: "pneumonia" then means any finding. A pair without labels is
    asked nothing, unless each class has its own column. Differs from the paper, which learns contexts in the
    place of prompts, pools regions and weighs errors asymmetrically. Cost: two texts a class and form at
    most: equal texts are encoded once. [arXiv:2206.09541]
    """

    citation: ClassVar[str] = "arXiv:2206.09541"
    needs: ClassVar[frozenset[str]] = frozenset({"extra_text"})
    extra_texts_remedy: ClassVar[str] = (
        "name the classes under classes of the card, or templates, and the labels under columns.labels"
    )

    # Positive to negative prompt, for a class without negative prompts in the card; {} is its name.
    forms: dict[str, str] = field(default_factory=lambda: {"{}": "no {}"})
    # Questions about classes that a pair does not have, for each that it has; null: as many as there are.
    absent: Annotated[int, Field(ge=1)] | None = 1
    per_pair: Annotated[int, Field(ge=1, le=64)] = 16  # questions at most
    unknown: Literal["ignore", "absent", "present"] = "ignore"  # how a class marked as unknown (-1) counts

    def __post_init__(self) -> None:
        for positive, negative in self.forms.items():
            for template in (positive, negative):
                if template.count("{}") != 1:
                    raise RecipeError(
                        f'objectives.class_questions.forms: "{template}" must hold {{}} once, for the class'
                    )
            if positive == negative:
                raise RecipeError(
                    f'objectives.class_questions.forms: both answers are "{positive}": negate the second'
                )

    def extra_texts(self, pair: TrainingPair) -> list[str]:
        """The right and the wrong answer to each question, one after the other."""
        present, unknown = set(pair.labels), set(pair.meta.get(UNKNOWN_LABELS, ()))
        if self.unknown == "present":
            present |= unknown
        if self.unknown != "ignore":
            unknown = set()
        asked = [name for name in pair.classes if name not in unknown and self._answers(pair, name)]
        # All of its classes first, then a sample of the others.
        asked.sort(key=lambda name: (name not in present, seeding.stable(pair.seed, "question", name)))
        held = len(present.intersection(asked))
        count = self.per_pair if self.absent is None else held + self.absent * max(1, held)
        texts = []
        for name in asked[: min(count, self.per_pair)]:
            yes, no = _drawn(self._answers(pair, name), pair, name)
            texts += [yes, no] if name in present else [no, yes]
        return texts

    def _answers(self, pair: TrainingPair, name: str) -> list[tuple[str, str]]:
        """Every positive and negative prompt that the class may be asked with; none for the normal class."""
        prompts = pair.classes[name]
        if prompts.negative:
            return [(yes, no) for yes in prompts.positive for no in prompts.negative]
        if names_normal_class(name):
            return []
        return [(yes.replace("{}", name), no.replace("{}", name)) for yes, no in self.forms.items()]

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


def _drawn(answers: Sequence[tuple[str, str]], pair: TrainingPair, name: str) -> tuple[str, str]:
    return min(answers, key=lambda both: seeding.stable(pair.seed, name, *both))
