"""Only tokens learn: a context before the texts, or the names of the classes."""

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
    from domainclip.models.layers import Modality

_MIN_TEXT_TOKENS = 8  # tokens that are left for a text, at least


@dataclass(frozen=True, kw_only=True)
class PromptLearning(Strategy):
    """[v_1] … [v_m] text: m learned token vectors before each text, the rest frozen: CoOp. [arXiv:2109.01134]

    For few labelled images, and to preserve all that the base knows: some thousand numbers learn. They are
    new tokens "<|context-1|>" of tokenizer and model, so the saved model is a plain one with a larger
    vocabulary, whose tokenizer_config.json lists the tokens before a text (key domainclip_words). They start
    as the tokens of `init_text`. Images are encoded once. The prompts of the adapted model contain the
    learned tokens, those of the base do not.
    per_class: each class has separate tokens, before texts that name it and no other;
    learn_class_names: one learned token replaces the name of each class, wherever a text contains it:
    learning to name [arXiv:2304.02364]; it starts as the mean of the tokens of the name;
    train_on text: images are not used; the embedding by the base of the caption of another item with the same
    labels replaces each: texts as images [arXiv:2211.12739]. Show classes as captions then, with
    corpus.captions.templates.
    Classes are those of the corpus, unless `classes` names them.
    """

    citation: ClassVar[str] = "arXiv:2109.01134"
    default_learning_rate: ClassVar[float] = 2e-3
    max_learning_rate: ClassVar[float | None] = 5e-2
    frozen_towers: ClassVar[frozenset[Modality]] = frozenset({"image"})

    context_tokens: Annotated[int, Field(ge=0, le=64)] = 4  # m
    init_text: str | None = "a photo of a"  # null: at random
    per_class: bool = False  # whether each class has its own tokens
    learn_class_names: bool = False  # whether a learned token replaces the name of each class
    classes: list[str] = field(default_factory=list)  # names of classes; empty: those of the corpus
    # Images with texts, or texts alone: the caption of an item with the same labels replaces its image.
    train_on: Literal["pairs", "text"] = "pairs"
    train_logit_scale: bool = False  # whether scale and bias learn too

    def requirements(self, base: DualEncoder) -> InputRequirements:
        """Captions instead of images, with `train_on: text`."""
        source: Literal["images", "caption_embeddings"] = (
            "caption_embeddings" if self.train_on == "text" else "images"
        )
        return InputRequirements(base.frames, base.max_tokens, source)

    def with_classes(self, classes: Sequence[str]) -> PromptLearning:
        """The same with the classes of the corpus, unless `classes` names others."""
        return self if self.classes else replace(self, classes=list(classes))

    def learning_rates(self, model: DualEncoder) -> dict[str, float]:
        """Adds the tokens; the factor on the learning rate by weight name.

        Raises: RecipeError when there is nothing to learn, or no class to learn it for.
        """
        import torch
        from tokenizers import AddedToken

        from domainclip.models import learned_tokens

        self._check(model)
        contexts, names = self._context_tokens(), self._name_tokens()
        tokens = [AddedToken(token, normalized=False) for context in contexts.values() for token in context]
        tokens += [AddedToken(token, normalized=False, lstrip=True, rstrip=True) for token in names.values()]
        vectors = [self._initial_context(model) for _ in contexts]
        vectors += [learned_tokens.token_vectors(model, name).mean(dim=0, keepdim=True) for name in names]
        rules = {"before": {name: "".join(context) for name, context in contexts.items()}, "names": names}
        learns = learned_tokens.widen_token_embeddings(model, tokens, torch.cat(vectors), rules)
        return model.set_trainable(
            [(re.escape(learns), 1.0), ("(scale|bias)/.*", float(self.train_logit_scale)), (".*", 0.0)]
        )

    def _context_tokens(self) -> dict[str, list[str]]:
        """The new tokens before a text, by the class that it names; "" for any text."""
        if not self.context_tokens:
            return {}
        numbers = range(1, self.context_tokens + 1)
        if not self.per_class:
            return {"": [f"<|context-{i}|>" for i in numbers]}
        return {name: [f"<|context-{at}-{i}|>" for i in numbers] for at, name in enumerate(self.classes, 1)}

    def _name_tokens(self) -> dict[str, str]:
        """The new token that replaces the name of each class."""
        if not self.learn_class_names:
            return {}
        return {name: f"<|name-{at}|>" for at, name in enumerate(self.classes, 1)}

    def _initial_context(self, model: DualEncoder) -> Tensor:
        """(m, w), the tokens of `init_text`, repeated, or random vectors."""
        import torch

        from domainclip.models import learned_tokens

        vectors = learned_tokens.token_vectors(model, self.init_text or "a")
        if self.init_text is None:
            return 0.02 * torch.randn(self.context_tokens, vectors.shape[1], device=vectors.device)
        return vectors.repeat(-(-self.context_tokens // len(vectors)), 1)[: self.context_tokens]

    def _check(self, model: DualEncoder) -> None:
        from domainclip.models import learned_tokens

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
        if self.context_tokens + _MIN_TEXT_TOKENS > model.max_tokens:
            raise RecipeError(
                f"strategy.prompt_learning.context_tokens: {self.context_tokens} words leave a text no "
                "room in the "
                f"{model.max_tokens} tokens of the base"
            )
