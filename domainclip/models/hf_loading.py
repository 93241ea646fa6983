"""How transformers opens a checkpoint: safetensors only, no code from elsewhere, fp32 weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers


def load_hf_model(folder: Path, **more: Any) -> tuple[Any, dict[str, Any]]:
    """The model, and a report of what its files lack: such weights have been made up at random."""
    found, report = transformers.AutoModel.from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        **more,
    )
    return found, report


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer."""
    return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def load_image_processor(folder: Path) -> Any:
    """The image processor, the one of Pillow, which is the same on every machine."""
    return transformers.AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
