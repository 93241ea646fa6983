"""Token ids of texts, made once: a run sees its captions in every epoch.

Legend: m texts, l tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from domainclip.models.learned_prompts import LEARNED_TOKENS

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder

_SAMPLE = ("A Cat.", "two  spaces", "it's (1.5 cm)!", "Straße_ÄÖ", "")  # shows what cleaning does
_AT_ONCE = 512  # texts a call: a tokenizer keeps kilobytes for each until it is done with all of them
_MOST = 2**20  # texts that are remembered; beyond, they are tokenised as they come


def fingerprint(model: DualEncoder) -> str:
    """A key for how texts become ids: vocabulary, cleaning, cutting and padding.

    The same weights behind another tokenizer say other things of a text.
    """
    tokenizer = model.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules = json.loads(backend.to_str())
        rules = {key: rules[key] for key in rules if key not in ("truncation", "padding")}  # left by a call
    else:
        file = Path(getattr(tokenizer, "vocab_file", None) or "")
        rules = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
    marks = (tokenizer.pad_token_id, getattr(tokenizer, "pad_token_type_id", 0), tokenizer.padding_side)
    cut = (tokenizer.truncation_side, model.max_tokens, model.fixed_length, model.inputs)
    said = [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items()), rules, marks, cut]
    cleaned = (type(model).__name__, model.clean(list(_SAMPLE)))
    learnt = [tokenizer.init_kwargs[LEARNED_TOKENS]] if LEARNED_TOKENS in tokenizer.init_kwargs else []
    whole = json.dumps([said, cleaned, *learnt], sort_keys=True, default=str)
    return hashlib.sha256(whole.encode()).hexdigest()


class TokenCache:
    """What `Towers.tokenise` gives, remembered by text."""

    def __init__(self, model: DualEncoder) -> None:
        self.model = model
        self.names: Sequence[str] = ()  # of the rows of each array
        self.known: dict[str, np.ndarray] = {}

    def remember(self, texts: Sequence[str]) -> None:
        """Tokenises those that are new."""
        room = _MOST - len(self.known)
        new = [text for text in dict.fromkeys(texts) if text not in self.known][:room]
        for start in range(0, len(new), _AT_ONCE):
            part = new[start : start + _AT_ONCE]
            self.known.update(zip(part, self._rows(part), strict=True))

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each has, after cutting and, where a family wants it, padding."""
        return [found.shape[1] for found in self._find(texts)]

    def batch(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """(m, l) ids, and what else the model was trained on, padded to the longest of these."""
        each = self._find(texts)
        tokenizer = self.model.tokenizer
        pads = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        return {
            name: pad_sequence(
                [torch.from_numpy(found[row]) for found in each],
                batch_first=True,
                padding_value=pads.get(name, 0),
                padding_side=tokenizer.padding_side,
            ).long()
            for row, name in enumerate(self.names)
        }

    def _find(self, texts: Sequence[str]) -> list[np.ndarray]:
        self.remember(texts)
        missing = [text for text in texts if text not in self.known]
        found = dict(zip(missing, self._rows(missing), strict=True))
        return [self.known[text] if text in self.known else found[text] for text in texts]

    def _rows(self, texts: Sequence[str]) -> list[np.ndarray]:
        """(k, l) each: ids, and what else the model was trained on."""
        if not texts:
            return []
        model = self.model
        ids = model.tokenizer(
            model.worded(list(texts)),
            padding="max_length" if model.fixed_length else False,
            truncation=True,
            max_length=model.max_tokens,
        )
        self.names = model.inputs or tuple(ids)
        return [np.array([ids[name][at] for name in self.names], np.int32) for at in range(len(texts))]
