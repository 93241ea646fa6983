"""An image tower joined to another text encoder: what transformers calls a dual encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import torch
import transformers

from domainclip.errors import ModelError
from domainclip.models import checkpoint_files, hf_loading
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.families.vision_text_dual_encoder import VisionTextDualEncoder
from domainclip.models.saving import quiet

# Families whose image tower and projection a dual encoder of transformers holds as they are.
SUPPORTED_ENCODERS = ("chinese_clip", "clip", "vision-text-dual-encoder")
_LOG_SCALE = 2.6592  # ln(1 / 0.07), at which CLIP began: a new tower is right about nothing


def replace_text_tower(base: DualEncoder, text: str, max_tokens: int, seed: int) -> DualEncoder:
    """New towers: the image side of `base` with its weights copied, another text encoder, a new projection.

    Raises: ModelError when the two cannot be joined, or the encoder cannot be read.
    """
    is_adapter = base.hf_model is not base.hf_base
    if base.family not in SUPPORTED_ENCODERS or is_adapter:
        what = "an adapter: merge it first" if is_adapter else f"of family {base.family}"
        raise ModelError(
            f'base "{base.base}": is {what}; a text tower can be replaced in {", ".join(SUPPORTED_ENCODERS)}'
        )
    try:
        folder, _ = checkpoint_files.find_checkpoint(text, None)
        checkpoint_files.require_files(text, folder, "model", ("config.json",))
        pickles = "; pickles such as pytorch_model.bin are not read, for they can run code"
        checkpoint_files.require_files(text, folder, "weights", checkpoint_files.WEIGHTS, pickles)
        checkpoint_files.require_files(text, folder, "tokenizer", checkpoint_files.TOKENIZERS)
    except ModelError as error:
        raise ModelError(str(error).replace('base "', 'text encoder "', 1)) from None
    encoder, tokenizer = _read(text, folder, seed)
    tokenizer.model_max_length = min(max_tokens, int(tokenizer.model_max_length))
    model = _joined(base.hf_base, encoder, base.width, seed)
    model.name_or_path = model.config.name_or_path = base.base
    return VisionTextDualEncoder(model, tokenizer, base.processor, base.base, base.revision).eval()


def _read(text: str, folder: Path, seed: int) -> tuple[Any, Any]:
    """The encoder, its pooler drawn where the checkpoint has none, and its tokenizer."""
    # A checkpoint of masked words may lack the pooler, which transformers then draws.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            with quiet():
                encoder, report = hf_loading.load_hf_model(folder)
                tokenizer = hf_loading.load_tokenizer(folder)
        except Exception as error:
            _refuse(text, f"cannot be read: {checkpoint_files.in_one_line(error)}")
    missing = [name for name in report["missing_keys"] if "pooler" not in name]
    if missing:
        _refuse(text, f'its file has no weight "{min(missing)}"')
    if not _pools(encoder, tokenizer):
        _refuse(text, "gives no pooled vector of a text; take a kin of BERT, RoBERTa or XLM-R")
    return encoder, tokenizer


@torch.no_grad()
def _pools(encoder: Any, tokenizer: Any) -> bool:
    try:
        return getattr(encoder(**tokenizer(["a"], return_tensors="pt")), "pooler_output", None) is not None
    except Exception:  # a decoder, or a model that wants pictures as well
        return False


def _joined(plain: Any, encoder: Any, width: int, seed: int) -> Any:
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        plain.config.vision_config,
        encoder.config,
        projection_dim=width,
        logit_scale_init_value=_LOG_SCALE,
    )
    with torch.random.fork_rng(devices=[]):  # what is drawn here is written over, or drawn again below
        model = transformers.VisionTextDualEncoderModel(config)
    model.vision_model.load_state_dict(plain.vision_model.state_dict())
    model.visual_projection.load_state_dict(plain.visual_projection.state_dict())
    model.text_model.load_state_dict(encoder.state_dict())
    draw = torch.Generator().manual_seed(seed)
    weight = model.text_projection.weight
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=draw) * weight.shape[1] ** -0.5)
    return model


def _refuse(text: str, fault: str) -> NoReturn:
    raise ModelError(f'text encoder "{text}": {fault}')
