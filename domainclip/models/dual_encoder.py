"""A dual encoder: an image tower and a text tower with one embedding space, of any supported family."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, ClassVar, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from domainclip.errors import ModelError
from domainclip.models import frame_pooling, frozen_prefix, last_layer, layers, token_embeddings
from domainclip.models.frame_pooling import FramePooling
from domainclip.models.image_preprocessor import ImagePreprocessor
from domainclip.models.layers import Modality
from domainclip.models.text_tokenizer import TextTokenizer, position_limit
from domainclip.models.token_embeddings import EncoderOutput
from domainclip.models.trainable_layers import TrainableLayers


class DualEncoder(TrainableLayers):
    """A checkpoint that can be trained: preprocessing, tokenizing and encoding; `save_model` writes it.

    Shapes: b items, d embedding width, t tokens or patches, l tokens of a text, w width of a tower.
    Embeddings are fp32 of unit length. A family is a subclass in `families/` that states what differs.
    """

    objective: str = "contrastive"  # which this family was trained with
    tokenizer_outputs: tuple[str, ...] | None = None  # which the text tower reads; None: all
    fixed_length: bool = False  # trained on padding, so padding changes the embedding
    zero_padding: bool = False  # behind a text stands the id 0, whatever the padding of the tokenizer
    applies_lower_case: bool = False  # honour `do_lower_case`, which the tokenizer itself ignores
    accepts_hidden_states: tuple[Modality, ...] = ("image", "text")  # of `frozen_hidden_states`
    can_be_trained: ClassVar[bool] = True

    trained_from: tuple[str, ...] = ()  # the bases that this one was adapted from, the last one first
    mean: Tensor
    std: Tensor

    def __init__(
        self, hf_model: PreTrainedModel, hf_tokenizer: Any, processor: Any, base: str, revision: str | None
    ) -> None:
        super().__init__()
        self.base = base
        self.revision = revision
        self.family: str = hf_model.config.model_type
        self.hf_model = hf_model
        self.added_modules = torch.nn.ModuleDict()
        self.text_tokenizer = TextTokenizer(
            hf_tokenizer,
            position_limit(hf_model.text_model, hf_model.config.text_config),
            family=type(self).__name__,
            outputs=self.tokenizer_outputs,
            fixed_length=self.fixed_length,
            lower_case=self.applies_lower_case and hf_tokenizer.init_kwargs.get("do_lower_case", False),
            zero_padding=self.zero_padding,
        )
        self.hf_image_processor = processor
        self.image_preprocessor = ImagePreprocessor.of(processor, f'base "{base}"')
        self.image_size = self.image_preprocessor.size
        self.width = layers.embedding_width(hf_model.config)
        # A checkpoint above the usual bound retains its own scale, or its first step would change it.
        self.max_log_scale = max(math.log(100), self._log_scale().item())
        self.register_buffer("mean", torch.tensor(self.image_preprocessor.mean), persistent=False)
        self.register_buffer("std", torch.tensor(self.image_preprocessor.std), persistent=False)
        self.check()

    @property
    def max_tokens(self) -> int:
        """The longest text that is read whole, special tokens included."""
        return self.text_tokenizer.max_tokens

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
    def objective_weights(self) -> dict[str, Tensor]:
        """Weights that belong to objectives, as NAME.WEIGHT; see `Objective.initial_weights`."""
        modules = self.added_modules
        return dict(modules["objectives"].named_parameters()) if "objectives" in modules else {}

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Bound the scale by 1 and its maximum; to be called after each optimizer step."""
        self.hf_base.logit_scale.clamp_(0, self.max_log_scale)

    def set_frame_pooling(self, pooling: FramePooling) -> None:
        """Encode studies of several images, pooled so; the pooling module is added where it has weights."""
        self.frames, self.frame_pooling = pooling.frames, pooling
        module = pooling.make_module(self.width)
        if module is not None:
            self.added_modules[frame_pooling.MODULE_NAME] = module.to(next(self.parameters()).device)

    def forward(
        self,
        image: dict[str, Tensor] | None = None,
        text: dict[str, Tensor] | Sequence[dict[str, Tensor]] | None = None,
        tokens: bool = False,
    ) -> EncoderOutput | tuple[Tensor | None, Tensor | None, Tensor, Tensor | None]:
        """(b, d) image, (b, d) text, scale and bias; None for an input that is not given.

        Texts may come in groups, each padded to its own longest; their rows follow one another. With `tokens`
        the result also has a vector for each patch and each token, see `EncoderOutput`.

        Raises: ModelError when tokens are requested of a family that has none.
        """
        groups = [text] if isinstance(text, Mapping) else text
        if tokens:
            rows, patches = (None, None) if image is None else self._encode_image_tokens(image)
            texts, words, mask = (None, None, None) if groups is None else self._encode_text_tokens(groups)
            own = self.objective_weights
            return EncoderOutput(rows, texts, self.scale, self.bias, patches, words, mask, own)
        rows = None if image is None else self.encode_image(image)
        texts = None if groups is None else torch.cat([self.encode_text(group) for group in groups])
        if own := self.objective_weights:
            return EncoderOutput(rows, texts, self.scale, self.bias, objective_weights=own)
        return rows, texts, self.scale, self.bias

    def encode_image(self, image: dict[str, Tensor]) -> Tensor:
        """(b, d), from stacked outputs of `image_preprocessor`, or from `hidden` of `frozen_hidden_states`.

        With `shown` (b, f) each row is a study of f images, of which these are present; absent ones cost
        nothing.
        """
        if "shown" in image:
            shown = image["shown"]
            rows = self.encode_image({name: value[shown] for name, value in image.items() if name != "shown"})
            module = dict(self.added_modules.items()).get(frame_pooling.MODULE_NAME)
            return frame_pooling.pool_frames(rows, shown, module)
        with self._started_at_hidden("image", image), self._last_layer_once("image", image):
            return _unit(self._image_features(image).pooler_output)

    def encode_text(self, text: dict[str, Tensor]) -> Tensor:
        """(b, d), from the output of `text_tokenizer`; with `hidden`, from those hidden states."""
        return _unit(self.encode_text_unnormalized(text))

    def encode_text_unnormalized(self, text: dict[str, Tensor]) -> Tensor:
        """(b, d) fp32 as `encode_text`, without scaling to unit length."""
        with self._started_at_hidden("text", text), self._last_layer_once("text", text):
            rows: Tensor = self._text_features(text).pooler_output
        return rows.float()

    @torch.no_grad()
    def frozen_hidden_states(self, modality: Modality, batch: dict[str, Tensor]) -> Tensor:
        """(b, t, w): the input of the lowest trained layer, for preprocessed images or tokenized texts."""
        first = self.first_trainable_layer(modality)
        assert first is not None  # a tower that is frozen whole has embeddings instead
        encode = self._image_features if modality == "image" else self._text_features
        with (
            frozen_prefix.stop_before_layer(self.tower(modality), first) as reached,
            suppress(frozen_prefix.LayerReached),
        ):
            encode(batch)
        return reached[0]

    def pixel_inputs(self, image: dict[str, Tensor]) -> dict[str, Tensor]:
        """The transformers model's image arguments, rescaled and normalized on the device."""
        pixels = image["pixels"].permute(0, 3, 1, 2).float() * self.image_preprocessor.rescale
        return {"pixel_values": (pixels - self.mean[:, None, None]) / self.std[:, None, None]}

    @torch.no_grad()
    def write_captions(self, image: dict[str, Tensor], beams: int = 1) -> list[str]:
        """A caption for each of b preprocessed images, by the captioner; see `Captioner.captions`.

        Raises: ModelError for a model without one.
        """
        if self.captioner is None:
            self.refuse("it has no captioner: train one with the objective captioning")
        _, tokens = self._encode_image_tokens(image)
        return self.captioner.captions(tokens, self.text_tokenizer.hf_tokenizer, beams)

    def has_token_embeddings(self, modality: Modality) -> bool:
        """Whether `forward` can return a vector for each patch, or for each token."""
        if modality == "text":
            return True
        # Studies of several images, and images of any shape, have no single grid of patches.
        one_grid = not self.image_preprocessor.patch and self.frames == 1 and self.patch_dropout is None
        return one_grid and token_embeddings.has_image_token_embeddings(self.tower("image"))

    def pooled_position(
        self, modality: Modality, batch: dict[str, Tensor]
    ) -> last_layer.TokenPosition | None:
        """The only position of a tower's output that the embedding depends on; None: several, or unknown.

        Defined by the family.
        """
        return None

    def refuse(self, fault: str) -> NoReturn:
        """Raise a ModelError that names the base."""
        raise ModelError(f'base "{self.base}": {fault}')

    def check(self) -> None:
        """Refuse a checkpoint whose components do not fit together.

        Raises: ModelError that names the component and the remedy.
        """
        tokenizer, config = self.text_tokenizer.hf_tokenizer, self.hf_base.config
        rows = config.text_config.vocab_size
        if len(tokenizer) > rows:
            self.refuse(
                f"its tokenizer has {len(tokenizer)} tokens, its text tower only {rows}; "
                "use the tokenizer that belongs to it"
            )
        if tokenizer.pad_token_id is None:
            self.refuse("its tokenizer has no padding token; name one in tokenizer_config.json")
        if self.image_preprocessor.patch:  # such a tower takes images of any size
            return
        side = getattr(config.vision_config, "image_size", None)
        size = (side, side) if isinstance(side, int) else tuple(side or self.image_size)
        if size != self.image_size:
            self.refuse(
                f"its preprocessor gives {_by(self.image_size)} pixels, its image tower takes {_by(size)}; "
                "correct the sizes in preprocessor_config.json"
            )

    def check_end_of_text(self, pooled_id: int) -> None:
        """For families that pool a text at its end-of-text token: every text must end in `pooled_id`.

        Raises: ModelError when it ends in another one.
        """
        end = int(self.text_tokenizer(["a " * self.max_tokens])["input_ids"][0, -1])
        if end != pooled_id:
            self.refuse(
                f"its tokenizer ends a text with the id {end}, its text tower pools at the id {pooled_id}; "
                "correct text_config.eos_token_id in config.json, or the tokenizer"
            )

    def _encode_image_tokens(self, image: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(b, d) and (b, n, d)."""
        if not self.has_token_embeddings("image"):
            self.refuse(
                f"family {self.family} has no token embeddings of images; leave out the objective that "
                "needs image_tokens"
            )
        with self._started_at_hidden("image", image):
            out = self._image_features(image)
        projection = getattr(self.hf_base, "visual_projection", None)
        return _unit(out.pooler_output), token_embeddings.image_token_embeddings(
            self.tower("image"), projection, out.last_hidden_state
        )

    def _encode_text_tokens(self, groups: Sequence[dict[str, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        """(b, d), (b, l, d) and (b, l)."""
        tower, projection = self.tower("text"), getattr(self.hf_base, "text_projection", None)
        pooled, tokens = [], []
        for group in groups:
            with self._started_at_hidden("text", group):
                out = self._text_features(group)
            pooled.append(_unit(out.pooler_output))
            rows = token_embeddings.text_token_embeddings(tower, projection, out.last_hidden_state)
            mask = token_embeddings.is_word_token(self.text_tokenizer.hf_tokenizer, group)
            tokens.append((rows, mask))
        return torch.cat(pooled), *token_embeddings.pad_and_join(tokens)

    def _image_features(self, image: dict[str, Tensor]) -> Any:
        """The image tower's whole output, its pooled token projected."""
        inputs = {"pixel_values": image["hidden"]} if "hidden" in image else self.pixel_inputs(image)
        with self._onednn("image"), self._patches_read(image):
            return self.hf_base.get_image_features(**inputs)

    def _text_features(self, text: dict[str, Tensor]) -> Any:
        """The text tower's whole output, its pooled token projected."""
        with self._onednn("text"):
            return self.hf_base.get_text_features(**{k: v for k, v in text.items() if k != "hidden"})

    def _last_layer_once(self, modality: Modality, batch: dict[str, Tensor]) -> AbstractContextManager[None]:
        """Inside, a tower's last layer runs at the pooled position only."""
        return last_layer.compute_only_at(self.tower(modality), self.pooled_position(modality, batch))

    def _log_scale(self) -> Tensor:
        # Some models hold it as a scalar, some as a one-element vector.
        log_scale: Tensor = self.hf_base.logit_scale
        return log_scale.float().reshape(())


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows.float(), dim=-1)


def _by(size: tuple[int, ...]) -> str:
    return " by ".join(str(edge) for edge in size)
