"""Texts to token ids as a checkpoint expects them, and a cache of the ids, since epochs repeat captions.

Shapes: b texts, l tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from domainclip.models import learned_prompts, token_embeddings
from domainclip.models.learned_prompts import LEARNED_TOKENS

_SAMPLES = ("A Cat.", "two  spaces", "it's (1.5 cm)!", "Straße_ÄÖ", "")  # these show what `normalize` does
_BATCH = 512  # texts a call: a tokenizer holds kilobytes for each until the call returns
_CAPACITY = 2**17  # cached texts, about 50 MB; any more are tokenized at each use


class TextTokenizer:
    """Cleaning, learned tokens, tokenizing, truncation and padding; counterpart of `ImagePreprocessor`."""

    def __init__(
        self,
        hf_tokenizer: Any,
        positions: int,
        *,
        family: str,
        outputs: tuple[str, ...] | None = None,
        fixed_length: bool = False,
        lower_case: bool = False,
        zero_padding: bool = False,
    ) -> None:
        """`positions` of the text tower; `outputs` of the tokenizer that it reads, None for all.

        `zero_padding`: behind a text stands the id 0, whatever the padding of the tokenizer.
        """
        if not fixed_length:  # positions count from the left: padding there would change the embedding
            hf_tokenizer.padding_side = "right"
        self.hf_tokenizer = hf_tokenizer
        self.family = family
        self.outputs = outputs
        self.fixed_length = fixed_length
        self.lower_case = lower_case
        self.zero_padding = zero_padding
        self.positions = positions
        self.refresh()

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """(b, l) ids, truncated to `max_tokens` before the end-of-text token, padded no more than needed."""
        batch = self.hf_tokenizer(
            self.insert_learned_tokens(texts),
            padding="max_length" if self.fixed_length else "longest",
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        if self.zero_padding:
            batch["input_ids"] = batch["input_ids"] * batch["attention_mask"]
        return {name: batch[name] for name in self.outputs or batch}

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before truncation, special tokens included."""
        counts: list[int] = []
        for start in range(0, len(texts), _BATCH):
            batch = self.insert_learned_tokens(texts[start : start + _BATCH])
            ids = self.hf_tokenizer(batch, return_attention_mask=False, verbose=False)["input_ids"]
            counts += map(len, ids)
        return counts

    def unpadded(self, texts: Sequence[str]) -> dict[str, list[np.ndarray]]:
        """int32 (l,) ids of each text, truncated, padded only to a fixed length."""
        batch = self.hf_tokenizer(
            self.insert_learned_tokens(texts),
            padding="max_length" if self.fixed_length else False,
            truncation=True,
            max_length=self.max_tokens,
        )
        if self.zero_padding:
            rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
            batch["input_ids"] = [np.multiply(ids, shown) for ids, shown in rows]
        return {name: [np.array(ids, np.int32) for ids in batch[name]] for name in self.outputs or batch}

    def word_ids(self, texts: Sequence[str]) -> Tensor:
        """(b, l) int64 ids without those of special tokens and padding; -1 behind the last of a text."""
        batch = self(texts)
        mask = token_embeddings.is_word_token(self.hf_tokenizer, batch)
        rows = [ids[shown] for ids, shown in zip(batch["input_ids"], mask, strict=True)]
        return pad_sequence(rows, batch_first=True, padding_value=-1)

    def insert_learned_tokens(self, texts: Sequence[str]) -> list[str]:
        """The texts as the tokenizer reads them: normalized, and with learned tokens."""
        return learned_prompts.insert_learned_tokens(self.hf_tokenizer, self.normalize(texts))

    def normalize(self, texts: Sequence[str]) -> list[str]:
        """The texts in lower case, where the checkpoint was trained on that."""
        return [text.lower() for text in texts] if self.lower_case else list(texts)

    def refresh(self, positions: int | None = None) -> None:
        """Apply a change of the tokenizer, of its length, or of the text tower's number of positions."""
        if positions is not None:
            self.positions = positions
        self.max_tokens = min(self.positions, int(self.hf_tokenizer.model_max_length))
        self._fingerprint: str | None = None

    def fingerprint(self) -> str:
        """Cache key of how texts become ids; with `DualEncoder.fingerprint`, of text embeddings."""
        if self._fingerprint is None:
            self._fingerprint = self._make_fingerprint()
        return self._fingerprint

    def _make_fingerprint(self) -> str:
        tokenizer = self.hf_tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is not None:
            rules = json.loads(backend.to_str())
            # The last call left these two.
            rules = {key: rules[key] for key in rules if key not in ("truncation", "padding")}
        else:
            file = Path(getattr(tokenizer, "vocab_file", None) or "")
            rules = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
        padding = (tokenizer.pad_token_id, getattr(tokenizer, "pad_token_type_id", 0), tokenizer.padding_side)
        limits = (tokenizer.truncation_side, self.max_tokens, self.fixed_length, self.outputs)
        vocabulary = sorted(tokenizer.get_vocab().items())
        normalized = (self.family, self.normalize(_SAMPLES))
        learned = [tokenizer.init_kwargs[LEARNED_TOKENS]] if LEARNED_TOKENS in tokenizer.init_kwargs else []
        key = [[type(tokenizer).__name__, vocabulary, rules, padding, limits], normalized, *learned]
        return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()


def position_limit(text_model: nn.Module, config: Any) -> int:
    """Number of tokens that a text tower has positions for; `config` is its own."""
    positions: int = config.max_position_embeddings
    for name, module in text_model.named_modules():
        # RoBERTa and its descendants count positions from behind the padding index.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions -= module.padding_idx + 1
    return positions


class TokenCache:
    """Token ids, computed once for each text."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer
        self.names: Sequence[str] = ()  # of the rows of each array
        self.arrays: dict[str, np.ndarray] = {}  # by text

    @property
    def pads_left(self) -> bool:
        """Whether padding precedes the text."""
        return bool(self.tokenizer.hf_tokenizer.padding_side == "left")

    def add(self, texts: Iterable[str]) -> None:
        """Tokenize the texts that are new, as far as there is room."""
        new = (text for text in texts if text not in self.arrays)
        while room := max(0, _CAPACITY - len(self.arrays)):
            batch = list(dict.fromkeys(islice(new, min(_BATCH, room))))
            if not batch:
                return
            self.arrays.update(zip(batch, self._arrays(batch), strict=True))

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, after truncation and, where the family needs it, padding."""
        return [array.shape[1] for array in self._find(texts)]

    def batch(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """(b, l) ids and the tokenizer's other outputs, padded to the longest of these texts."""
        arrays = self._find(texts)
        tokenizer = self.tokenizer.hf_tokenizer
        pads = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        return {
            name: pad_sequence(
                [torch.from_numpy(array[row]) for array in arrays],
                batch_first=True,
                padding_value=pads.get(name, 0),
                padding_side=tokenizer.padding_side,
            ).long()
            for row, name in enumerate(self.names)
        }

    def _find(self, texts: Sequence[str]) -> list[np.ndarray]:
        self.add(texts)
        missing = [text for text in texts if text not in self.arrays]
        computed = dict(zip(missing, self._arrays(missing), strict=True))
        return [self.arrays[text] if text in self.arrays else computed[text] for text in texts]

    def _arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
        """(k, l) each: the ids, and the tokenizer's other outputs."""
        if not texts:
            return []
        rows = self.tokenizer.unpadded(texts)
        self.names = tuple(rows)
        return [np.stack(outputs) for outputs in zip(*rows.values(), strict=True)]
