"""Towers: an image tower and a text tower with one embedding space, whatever family they come from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from domainclip.errors import ModelError
from domainclip.towers import linear_layers, patches, saving, tokens, weights
from domainclip.towers.midway import TOWERS, Midway, Part
from domainclip.towers.preprocess import Preprocess


class Towers(Midway):
    """A checkpoint that can be trained: preprocessing, tokenising, embedding, naming and saving.

    Shapes: b items, d embedding width, l tokens, h and w pixels. Embeddings are fp32 of unit length.
    A family is a subclass in `families/` that states what differs.
    """

    objective: ClassVar[str] = "contrastive"  # what this family was trained with
    inputs: ClassVar[tuple[str, ...] | None] = None  # the tokenizer's outputs that the model was trained on
    fixed_length: ClassVar[bool] = False  # trained on padding, so padding changes the embedding

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: PreTrainedModel, tokenizer: Any, processor: Any, base: str, revision: str | None
    ) -> None:
        super().__init__()
        self.base = base
        self.revision = revision
        self.family: str = model.config.model_type
        self.model = model
        self.tokenizer = tokenizer
        self.processor = processor
        self.preprocess = Preprocess.of(processor, f'base "{base}"')
        self.image_size = self.preprocess.size
        self.width: int = _width(model.config)
        self.max_tokens = self._limit()
        # A checkpoint born above the usual bound keeps its own, or its first step would change it.
        self.max_log_scale = max(math.log(100), self._log_scale().item())
        self.register_buffer("mean", torch.tensor(self.preprocess.mean), persistent=False)
        self.register_buffer("std", torch.tensor(self.preprocess.std), persistent=False)
        self.check()

    @property
    def scale(self) -> Tensor:
        """() fp32, the inverse temperature."""
        return self._log_scale().exp()

    @property
    def bias(self) -> Tensor | None:
        """() fp32, of families trained with the sigmoid objective."""
        bias = getattr(self.plain, "logit_bias", None)
        return None if bias is None else bias.float().reshape(())

    def forward(
        self,
        image: dict[str, Tensor] | None = None,
        text: dict[str, Tensor] | Sequence[dict[str, Tensor]] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor | None]:
        """(b, d) image, (b, d) text, scale and bias; what is not given is None.

        Texts may come in groups, each padded to its own longest; their rows follow one another.
        """
        encoded_image = None if image is None else self.encode_image(image)
        groups = [text] if isinstance(text, Mapping) else text
        encoded_text = None if groups is None else torch.cat([self.encode_text(one) for one in groups])
        return encoded_image, encoded_text, self.scale, self.bias

    def encode_image(self, image: dict[str, Tensor]) -> Tensor:
        """(b, d), from the stacked uint8 output of `preprocess`, or from `hidden` of `lower`."""
        if "hidden" not in image:
            found = self.plain.get_image_features(**self.pixels(image))
        else:
            with self._begun("image", image["hidden"]):
                found = self.plain.get_image_features(pixel_values=image["hidden"])
        return F.normalize(found.pooler_output.float(), dim=-1)

    def encode_text(self, text: dict[str, Tensor]) -> Tensor:
        """(b, d), from the output of `tokenise`, and from `hidden` of `lower` where it stands beside."""
        ids = {name: value for name, value in text.items() if name != "hidden"}
        with self._begun("text", text["hidden"]) if "hidden" in text else nullcontext():
            found = self.plain.get_text_features(**ids)
        return F.normalize(found.pooler_output.float(), dim=-1)

    def encode_patches(self, image: dict[str, Tensor]) -> Tensor:
        """(b, n, d), a unit vector for each patch, in rows from the top left; see `towers/patches.py`.

        Raises: ModelError for a family whose patches have no fixed grid.
        """
        return patches.encode(self, image)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        edge: int = self.plain.config.vision_config.patch_size
        return self.image_size[0] // edge, self.image_size[1] // edge

    def pixels(self, image: dict[str, Tensor]) -> dict[str, Tensor]:
        """The model's own image arguments, rescaled and normalised on the device."""
        pixels = image["pixels"].permute(0, 3, 1, 2).float() * self.preprocess.rescale
        return {"pixel_values": (pixels - self.mean[:, None, None]) / self.std[:, None, None]}

    def tokenise(self, texts: list[str]) -> dict[str, Tensor]:
        """(b, l) ids, cut to `max_tokens` with the end-of-text token kept, padded no more than needed."""
        batch = self.tokenizer(
            self.clean(texts),
            padding="max_length" if self.fixed_length else "longest",
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        return {name: batch[name] for name in self.inputs or batch}

    def count_tokens(self, texts: list[str]) -> list[int]:
        """How long each text is before it is cut, special tokens included."""
        ids = self.tokenizer(self.clean(texts), return_attention_mask=False, verbose=False)["input_ids"]
        return [len(one) for one in ids]

    @cached_property
    def wording(self) -> str:
        """A key for how texts become ids; with `fingerprint` a key for what the model says of a text."""
        return tokens.fingerprint(self)

    def clean(self, texts: list[str]) -> list[str]:
        """The texts as the tokenizer wants them."""
        return texts

    def select(self, patterns: list[tuple[str, float]]) -> dict[str, float]:
        """Let learn what the first matching pattern gives a factor above 0, lock the rest.

        Returns the factor on the learning rate by weight name. A pattern matches whole names.

        Raises: RecipeError for a weight that no pattern covers, and a pattern that decides nothing.
        """
        named = self.weights()
        factors = weights.choose(named, patterns)
        for name, weight in named.items():
            weight.requires_grad_(factors[name] > 0)
        return factors

    def decayed(self, name: str) -> bool:
        """Whether weight decay may pull at this weight."""
        return weights.decays(name, self.weights()[name])

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keep the scale within 1 and its bound; to be called after each optimizer step."""
        self.plain.logit_scale.clamp_(0, self.max_log_scale)

    def lora_targets(self, part: Part, kind: str, last_layers: int | None = None) -> list[str]:
        """Full names of the linear layers of a tower, as peft's `target_modules` wants them.

        `kind` is "attention" or "attention+mlp".

        Raises: RecipeError for a kind or a number of layers that there is not.
        """
        names = linear_layers.targets(self._tower(part), kind, last_layers)
        return [f"{TOWERS[part]}.{name}" for name in names]

    def save(self, folder: str | Path) -> None:
        """Write a folder that plain transformers, or peft, loads, and `load` too.

        An adapter is written with the name of its base, and with scale and bias beside it.

        Raises: ModelError when a weight learns that an adapter cannot hold.
        """
        saving.save(self, Path(folder))

    def check(self) -> None:
        """Refuse a checkpoint whose parts do not fit together.

        Raises: ModelError that names the part and the way out.
        """
        rows = self.plain.config.text_config.vocab_size
        if len(self.tokenizer) > rows:
            self.refuse(
                f"its tokenizer has {len(self.tokenizer)} tokens, its text tower only {rows}; "
                "use the tokenizer that belongs to it"
            )
        if self.tokenizer.pad_token_id is None:
            self.refuse("its tokenizer has no padding token; name one in tokenizer_config.json")
        if self.preprocess.patch:  # such a tower takes images of any size
            return
        side = getattr(self.plain.config.vision_config, "image_size", None)
        wanted = (side, side) if isinstance(side, int) else tuple(side or self.image_size)
        if wanted != self.image_size:
            self.refuse(
                f"its preprocessor gives {_by(self.image_size)} pixels, its image tower takes {_by(wanted)}; "
                "mend the sizes in preprocessor_config.json"
            )

    def check_end_of_text(self, pools_at: int) -> None:
        """For families that read a text at its end-of-text token: every text must end in `pools_at`."""
        end = int(self.tokenise(["a " * self.max_tokens])["input_ids"][0, -1])
        if end != pools_at:
            self.refuse(
                f"its tokenizer ends a text with the id {end}, its text tower reads at the id {pools_at}; "
                "mend text_config.eos_token_id in config.json, or the tokenizer"
            )

    def refuse(self, fault: str) -> NoReturn:
        """Raise a ModelError that names the base."""
        raise ModelError(f'base "{self.base}": {fault}')

    def _log_scale(self) -> Tensor:
        # Some models hold it as a scalar, some as a one-element vector.
        log_scale: Tensor = self.plain.logit_scale
        return log_scale.float().reshape(())

    def _limit(self) -> int:
        positions: int = self.plain.config.text_config.max_position_embeddings
        for name, module in self.plain.text_model.named_modules():
            # RoBERTa and its kin count positions from behind the padding index.
            if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
                positions -= module.padding_idx + 1
        return min(positions, int(self.tokenizer.model_max_length))


def _width(config: Any) -> int:
    return int(getattr(config, "projection_dim", None) or config.text_config.projection_size)


def _by(size: tuple[int, ...]) -> str:
    return " by ".join(str(edge) for edge in size)
