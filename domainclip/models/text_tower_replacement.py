"""Join an image tower to another text encoder: a VisionTextDualEncoder of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import torch
import transformers

from domainclip.errors import ModelError
from domainclip.models import checkpoint_files, folder_checks, hf_loading
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.families.vision_text_dual_encoder import VisionTextDualEncoder
from domainclip.models.hf_loading import quiet

# Families whose image tower and projection fit into a VisionTextDualEncoder unchanged.
SUPPORTED_ENCODERS = ("chinese_clip", "clip", "vision-text-dual-encoder")
_LOG_SCALE = 2.6592  # ln(1 / 0.07), at which CLIP began: the base's scale does not fit an untrained tower


def replace_text_tower(base: DualEncoder, text: str, max_tokens: int, seed: int) -> DualEncoder:
    """A new model: the image side of `base` with its weights copied, another text encoder, a new projection.

    Raises: ModelError when the two cannot be joined, or the encoder cannot be read.
    """
    if base.family not in SUPPORTED_ENCODERS:
        families = ", ".join(SUPPORTED_ENCODERS)
        raise ModelError(
            f'base "{base.base}": is of family {base.family}; a text tower can be replaced in {families}'
        )
    try:
        folder, commit = checkpoint_files.find_checkpoint(text, None)
        folder_checks.check_folder(text, folder, on_hub=commit is not None)
        checkpoint_files.require_files(text, folder, "model", ("config.json",))
        checkpoint_files.require_files(text, folder, "tokenizer", checkpoint_files.TOKENIZERS)
        weights = checkpoint_files.find_weights(text, folder, commit)
    except ModelError as error:
        raise ModelError(str(error).replace('base "', 'text encoder "', 1)) from None
    encoder, hf_tokenizer = _read(text, folder, weights, seed)
    hf_tokenizer.model_max_length = min(max_tokens, int(hf_tokenizer.model_max_length))
    hf_model = _joined(base.hf_base, encoder, base.width, seed)
    hf_model.name_or_path = hf_model.config.name_or_path = base.base
    processor = base.hf_image_processor
    return VisionTextDualEncoder(hf_model, hf_tokenizer, processor, base.base, base.revision).eval()


def _read(text: str, folder: Path, weights: Path, seed: int) -> tuple[Any, Any]:
    """The encoder, with a pooler drawn from the seed where the checkpoint has none, and its tokenizer."""
    # A checkpoint of a masked language model may lack the pooler, which transformers then draws.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            with quiet():
                encoder, report = hf_loading.load_hf_model(folder, weights)
                hf_tokenizer = hf_loading.load_tokenizer(folder)
        except Exception as error:
            _refuse(text, f"cannot be read: {checkpoint_files.in_one_line(error)}")
    missing = [name for name in report["missing_keys"] if "pooler" not in name]
    if missing:
        _refuse(text, f'its file has no weight "{min(missing)}"')
    if not _pools(encoder, hf_tokenizer):
        _refuse(text, "returns no pooled vector of a text; use a model such as BERT, RoBERTa or XLM-R")
    return encoder, hf_tokenizer


@torch.no_grad()
def _pools(encoder: Any, hf_tokenizer: Any) -> bool:
    try:
        out = encoder(**hf_tokenizer(["a"], return_tensors="pt"))
        return getattr(out, "pooler_output", None) is not None
    except Exception:  # a decoder, or a model that needs images as well
        return False


def _joined(hf_base: Any, encoder: Any, width: int, seed: int) -> Any:
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        hf_base.config.vision_config,
        encoder.config,
        projection_dim=width,
        logit_scale_init_value=_LOG_SCALE,
    )
    with torch.random.fork_rng(devices=[]):  # these initial weights are replaced below
        hf_model = transformers.VisionTextDualEncoderModel(config)
    hf_model.vision_model.load_state_dict(hf_base.vision_model.state_dict())
    hf_model.visual_projection.load_state_dict(hf_base.visual_projection.state_dict())
    hf_model.text_model.load_state_dict(encoder.state_dict())
    generator = torch.Generator().manual_seed(seed)
    weight = hf_model.text_projection.weight
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=generator) * weight.shape[1] ** -0.5)
    return hf_model


def _refuse(text: str, fault: str) -> NoReturn:
    raise ModelError(f'text encoder "{text}": {fault}')
