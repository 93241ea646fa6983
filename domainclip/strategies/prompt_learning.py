"""Only words learn: a context before the texts, or the names of the classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from domainclip.errors import RecipeError
from domainclip.strategies.base import InputRequirements, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from domainclip.models.dual_encoder import DualEncoder

_ROOM = 8  # tokens that a text has left at least


@dataclass(frozen=True, kw_only=True)
class PromptLearning(Strategy):
    """[v_1] … [v_m] text: m learnt word vectors before every text, all else locked: CoOp. [arXiv:2109.01134]

    For few labelled pictures, and to keep everything the base knows: some thousand numbers learn. The words
    are new tokens "<|context-1|>" of tokenizer and model, so what is saved is a plain model with a larger
    vocabulary; its tokenizer_config.json says what stands before a text (key domainclip_words). They start
    as the words of `init_text`. Pictures are encoded once. The adapted model's prompts carry the words, the
    base is asked its own.
    per_class: each class has words of its own, before texts that name it and no other;
    learn_class_names: one learnt word stands for the name of each class, wherever a text has it: learning to
    name [arXiv:2304.02364]; it starts as the mean of the name's own tokens;
    train_on text: no picture is looked at; the base's embedding of another item's caption, of one with the
    same labels, stands for it: texts as images [arXiv:2211.12739]. Show classes as captions then, with
    corpus.captions.templates.
    Classes are those of the corpus, unless `classes` names them.
    """

    citation: ClassVar[str] = "arXiv:2109.01134"
    default_learning_rate: ClassVar[float] = 2e-3
    max_learning_rate: ClassVar[float | None] = 5e-2

    context_tokens: Annotated[int, Field(ge=0, le=64)] = 4  # m
    init_text: str | None = "a photo of a"  # null: at random
    per_class: bool = False
    learn_class_names: bool = False
    classes: list[str] = field(default_factory=list)
    train_on: Literal["pairs", "text"] = "pairs"
    train_logit_scale: bool = False  # whether scale and bias learn too

    def requirements(self, base: DualEncoder) -> InputRequirements:
        """Captions instead of images, with `source: text`."""
        source: Literal["images", "caption_embeddings"] = (
            "caption_embeddings" if self.train_on == "text" else "images"
        )
        return InputRequirements(base.frames, base.max_tokens, source)

    def with_classes(self, classes: Sequence[str]) -> PromptLearning:
        """The same with the classes of the corpus, unless `classes` names others."""
        return self if self.classes else replace(self, classes=list(classes))

    def learning_rates(self, model: DualEncoder) -> dict[str, float]:
        """Makes the words; the factor on the learning rate by weight name.

        Raises: RecipeError when there is nothing to learn, or no class to learn it for.
        """
        import torch
        from tokenizers import AddedToken

        from domainclip.models import learned_tokens

        self._refuse(model)
        before, names = self._contexts(), self._names()
        kinds = [AddedToken(one, normalized=False) for own in before.values() for one in own]
        kinds += [AddedToken(one, normalized=False, lstrip=True, rstrip=True) for one in names.values()]
        added = [self._start(model) for _ in before]
        added += [learned_tokens.token_vectors(model, name).mean(dim=0, keepdim=True) for name in names]
        said = {"before": {name: "".join(own) for name, own in before.items()}, "names": names}
        learns = learned_tokens.widen_token_embeddings(model, kinds, torch.cat(added), said)
        return model.set_trainable(
            [(re.escape(learns), 1.0), ("(scale|bias)/.*", float(self.train_logit_scale)), (".*", 0.0)]
        )

    def _contexts(self) -> dict[str, list[str]]:
        """The new words before a text, by the class it names; "" for any text."""
        if not self.context_tokens:
            return {}
        numbers = range(1, self.context_tokens + 1)
        if not self.per_class:
            return {"": [f"<|context-{i}|>" for i in numbers]}
        return {name: [f"<|context-{at}-{i}|>" for i in numbers] for at, name in enumerate(self.classes, 1)}

    def _names(self) -> dict[str, str]:
        """The new word that stands for each class's name."""
        return (
            {name: f"<|name-{at}|>" for at, name in enumerate(self.classes, 1)}
            if self.learn_class_names
            else {}
        )

    def _start(self, model: DualEncoder) -> Tensor:
        """(m, w), the words of `start` over and over."""
        import torch

        from domainclip.models import learned_tokens

        said = learned_tokens.token_vectors(model, self.init_text or "a")
        if self.init_text is None:
            return 0.02 * torch.randn(self.context_tokens, said.shape[1], device=said.device)
        return said.repeat(-(-self.context_tokens // len(said)), 1)[: self.context_tokens]

    def _refuse(self, model: DualEncoder) -> None:
        from domainclip.models import learned_tokens

        if model.hf_model is not model.hf_base:
            raise RecipeError(
                "strategy.prompt_learning: the base is an adapter, which holds no words: merge it"
            )
        if not self.context_tokens and not self.learn_class_names:
            raise RecipeError(
                "strategy.prompt_learning.context_tokens: 0 words and learn_class_names: false leave "
                "nothing to learn"
            )
        by_class = self.per_class or self.learn_class_names
        if by_class and not self.classes:
            raise RecipeError(
                "strategy.prompt_learning.classes: per_class and learn_class_names need classes, and the "
                "corpus has none: name them, or give the card classes or templates"
            )
        if self.init_text is not None and not len(learned_tokens.token_vectors(model, self.init_text)):
            raise RecipeError(
                "strategy.prompt_learning.init_text: holds no word; write some, or null for a random start"
            )
        empty = [
            name for name in self.classes if by_class and not len(learned_tokens.token_vectors(model, name))
        ]
        if empty:
            raise RecipeError(
                f'strategy.prompt_learning.classes: the base reads no word in "{empty[0]}": name it otherwise'
            )
        if self.context_tokens + _ROOM > model.max_tokens:
            raise RecipeError(
                f"strategy.prompt_learning.context_tokens: {self.context_tokens} words leave a text no "
                "room in the "
                f"{model.max_tokens} tokens of the base"
            )
