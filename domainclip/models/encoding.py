"""How pictures and texts become embeddings: both towers as they stand, or begun midway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from domainclip.errors import ModelError
from domainclip.models import frozen_prefix, last_layer, token_embeddings
from domainclip.models.frame_pooling import MODULE_NAME, masked_mean
from domainclip.models.image_preprocessor import ImagePreprocessor
from domainclip.models.layers import Modality
from domainclip.models.token_embeddings import EncoderOutput
from domainclip.models.trainable_layers import TrainableLayers


class Encoding(TrainableLayers):
    """Two towers that encode.

    Shapes: b items, d embedding width, t tokens or patches, w width of a tower. Embeddings are fp32 of unit
    length.
    """

    base: str
    family: str
    image_preprocessor: ImagePreprocessor
    tokenizer: Any
    mean: Tensor
    std: Tensor

    @property
    def scale(self) -> Tensor:
        """() fp32, the inverse temperature."""
        return self._log_scale().exp()

    @property
    def bias(self) -> Tensor | None:
        """() fp32, of families trained with the sigmoid objective."""
        bias = getattr(self.hf_base, "logit_bias", None)
        return None if bias is None else bias.float().reshape(())

    @property
    def heads(self) -> Tensor | None:
        """(2, d + t, d) of an objective with a third tower, see `objectives/three_towers.py`."""
        return self.added_modules["third"].heads if "third" in self.added_modules else None  # type: ignore[return-value]

    def forward(
        self,
        image: dict[str, Tensor] | None = None,
        text: dict[str, Tensor] | Sequence[dict[str, Tensor]] | None = None,
        tokens: bool = False,
    ) -> EncoderOutput | tuple[Tensor | None, Tensor | None, Tensor, Tensor | None]:
        """(b, d) image, (b, d) text, scale and bias; what is not given is None.

        Texts may come in groups, each padded to its own longest; their rows follow one another. With `tokens`
        a vector for each patch and each word comes too, see `Encoded`.

        Raises: ModelError when tokens are asked of a family that has none.
        """
        groups = [text] if isinstance(text, Mapping) else text
        if tokens:
            rows, patches = (None, None) if image is None else self._image_and_patches(image)
            found = (None, None, None) if groups is None else self._texts_and_words(groups)
            return EncoderOutput(
                rows, found[0], self.scale, self.bias, patches, found[1], found[2], self.heads
            )
        rows = None if image is None else self.encode_image(image)
        texts = None if groups is None else torch.cat([self.encode_text(one) for one in groups])
        if self.heads is not None:
            return EncoderOutput(rows, texts, self.scale, self.bias, heads=self.heads)
        return rows, texts, self.scale, self.bias

    def encode_image(self, image: dict[str, Tensor]) -> Tensor:
        """(b, d), from the stacked uint8 output of `preprocess`, or from `hidden` of `lower`.

        With `shown` (b, f) each row is a study of f pictures; see `towers/pooling.py`.
        """
        if "shown" in image:
            return encode_frames(self, image)
        with self._begun("image", image), self._read_once("image", image):
            return _unit(self._image(image).pooler_output)

    def encode_text(self, text: dict[str, Tensor]) -> Tensor:
        """(b, d), from the output of `tokenise`, and from `hidden` of `lower` where it stands beside."""
        return _unit(self.raw_text(text))

    def raw_text(self, text: dict[str, Tensor]) -> Tensor:
        """(b, d) fp32 as `encode_text`, but each as long as the tower made it."""
        with self._begun("text", text), self._read_once("text", text):
            rows: Tensor = self._text(text).pooler_output
        return rows.float()

    @torch.no_grad()
    def frozen_hidden_states(self, part: Modality, batch: dict[str, Tensor]) -> Tensor:
        """(b, t, w) what reaches the lowest layer that learns, of what `preprocess` or `tokenise` gave."""
        first = self.first_trainable_layer(part)
        assert first is not None  # a tower that is locked whole has embeddings instead
        run = self._image if part == "image" else self._text
        with (
            frozen_prefix.stop_before_layer(self._tower(part), first) as found,
            suppress(frozen_prefix.LayerReached),
        ):
            run(batch)
        return found[0]

    def pixels(self, image: dict[str, Tensor]) -> dict[str, Tensor]:
        """The model's own image arguments, rescaled and normalised on the device."""
        pixels = image["pixels"].permute(0, 3, 1, 2).float() * self.image_preprocessor.rescale
        return {"pixel_values": (pixels - self.mean[:, None, None]) / self.std[:, None, None]}

    def has_token_embeddings(self, part: Modality) -> bool:
        """Whether `forward` can give a vector for each patch, or for each word."""
        return token_embeddings.has_token_embeddings(self, part)

    def pooled_position(self, part: Modality, batch: dict[str, Tensor]) -> last_layer.TokenPosition | None:
        """The one place of the tower's output that its embedding is made of; None: more than one, or unknown.

        A family's own.
        """
        return None

    def refuse(self, fault: str) -> NoReturn:
        """Raise a ModelError that names the base."""
        raise ModelError(f'base "{self.base}": {fault}')

    def _image_and_patches(self, image: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(b, d) and (b, n, d)."""
        if not self.has_token_embeddings("image"):
            self.refuse(
                f"family {self.family} gives no token embeddings of images; leave out the objective that "
                "needs image_tokens"
            )
        with self._begun("image", image):
            out = self._image(image)
        return _unit(out.pooler_output), token_embeddings.image_token_embeddings(self, out.last_hidden_state)

    def _texts_and_words(self, groups: Sequence[dict[str, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        """(b, d), (b, l, d) and (b, l)."""
        pooled, each = [], []
        for one in groups:
            with self._begun("text", one):
                out = self._text(one)
            pooled.append(_unit(out.pooler_output))
            each.append(token_embeddings.text_token_embeddings(self, out.last_hidden_state, one))
        return torch.cat(pooled), *token_embeddings.pad_and_join(each)

    def _image(self, image: dict[str, Tensor]) -> Any:
        """The image tower's whole output, its pooled token projected."""
        given = {"pixel_values": image["hidden"]} if "hidden" in image else self.pixels(image)
        with self._products("image"):
            return self.hf_base.get_image_features(**given)

    def _text(self, text: dict[str, Tensor]) -> Any:
        """The text tower's whole output, its pooled token projected."""
        with self._products("text"):
            return self.hf_base.get_text_features(**{k: v for k, v in text.items() if k != "hidden"})

    def _read_once(self, part: Modality, batch: dict[str, Tensor]) -> AbstractContextManager[None]:
        return last_layer.compute_only_at(self._tower(part), self.pooled_position(part, batch))

    def _log_scale(self) -> Tensor:
        # Some models hold it as a scalar, some as a one-element vector.
        log_scale: Tensor = self.hf_base.logit_scale
        return log_scale.float().reshape(())


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows.float(), dim=-1)


def encode_frames(model: Encoding, image: dict[str, Tensor]) -> Tensor:
    """(b, d) unit length, of b studies with f frames each; frames that are not there cost nothing."""
    shown = image["shown"]
    each = model.encode_image({name: value[shown] for name, value in image.items() if name != "shown"})
    frames = each.new_zeros(*shown.shape, each.shape[-1]).masked_scatter(shown[..., None], each)
    if MODULE_NAME in model.added_modules:
        return F.normalize(model.added_modules[MODULE_NAME](frames, shown).float(), dim=-1)
    return F.normalize(masked_mean(frames, shown), dim=-1)
