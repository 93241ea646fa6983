"""Save a model as a folder that plain transformers and peft load without this package."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from domainclip.errors import ModelError
from domainclip.models import frame_pooling, parameters
from domainclip.models.checkpoint_files import (
    ADAPTER,
    ADAPTER_CONFIG,
    CALIBRATION,
    CAPTIONER,
    POOLING,
    POOLING_WEIGHTS,
    SPACE,
)
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.hf_loading import quiet


def save_model(model: DualEncoder, folder: Path) -> None:
    """Write model or adapter, tokenizer and image processor, for transformers, peft and `load_model`.

    An adapter is written with the name of its base, and with scale and bias in a file of their own.

    Raises: ModelError when a weight is trained that an adapter cannot hold, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with quiet():
            if model.hf_model is model.hf_base:
                model.hf_model.save_pretrained(folder)
            else:
                _save_adapter(model, folder)
            hf_tokenizer = model.text_tokenizer.hf_tokenizer
            reset_last_call(hf_tokenizer)
            hf_tokenizer.save_pretrained(folder)
            model.hf_image_processor.save_pretrained(folder)
            _save_frame_pooling(model, folder)
            if model.scorer is not None:
                model.scorer.save(folder)
            for name, part in ((CAPTIONER, model.captioner), (SPACE, model.space)):
                (folder / name).unlink(missing_ok=True)  # of other weights
                if part is not None:
                    part.save(folder / name)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError(
            f"{folder}: the model cannot be written: {reason}; free some space, then continue"
        ) from None


def weights_not_saved(model: DualEncoder, state: dict[str, Tensor] | None = None) -> str | None:
    """Name of a trained weight that the adapter around the model does not hold; None: there is none.

    `state` holds the adapter's weights, where they are known.
    """
    if model.hf_model is model.hf_base:
        return None
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model.hf_model, save_embedding_layers=False) if state is None else state
    saved = {value.data_ptr() for value in state.values()}
    in_other_files = ("scale/", "bias/", f"image/{frame_pooling.MODULE_NAME}.", parameters.OBJECTIVE_WEIGHTS)
    for name, weight in model.weights().items():
        if weight.requires_grad and not name.startswith(in_other_files) and weight.data_ptr() not in saved:
            return name
    return None


def read_calibration(hf_model: Any, folder: Path) -> None:
    """Load the scale and bias that were saved with an adapter into the model."""
    for name, value in load_file(folder / CALIBRATION).items():
        parameter = getattr(hf_model, name)
        parameter.data.copy_(value.reshape(parameter.shape))


def reset_last_call(hf_tokenizer: Any) -> None:
    """Remove the padding and truncation of its last call from a tokenizer, before it is saved."""
    # A tokenizer retains the padding and truncation of its last call and would write them into its file;
    # loaded again, it would have other defaults than the base.
    backend = getattr(hf_tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_padding()
        backend.no_truncation()


def _save_frame_pooling(model: DualEncoder, folder: Path) -> None:
    if model.frame_pooling is None:
        return
    settings = json.dumps(asdict(model.frame_pooling), indent=2, sort_keys=True)
    (folder / POOLING).write_text(settings, encoding="utf-8")
    if frame_pooling.MODULE_NAME in model.added_modules:
        state = model.added_modules[frame_pooling.MODULE_NAME].state_dict()
        weights = {name: value.contiguous() for name, value in state.items()}
        save_file(weights, folder / POOLING_WEIGHTS, {"format": "pt"})


def _save_adapter(model: DualEncoder, folder: Path) -> None:
    from peft import get_peft_model_state_dict

    # With embedding layers on "auto", peft would ask the Hub about the base.
    state = get_peft_model_state_dict(model.hf_model, save_embedding_layers=False)
    if name := weights_not_saved(model, state):
        raise ModelError(
            f'the weight "{name}" is trained, but no adapter holds it; take plain weights as base'
        )
    save_file({name: value.contiguous() for name, value in state.items()}, folder / ADAPTER, {"format": "pt"})
    (folder / ADAPTER_CONFIG).write_text(json.dumps(_adapter_config(model), indent=2, sort_keys=True))
    scale_and_bias = {n: getattr(model.hf_base, n, None) for n in ("logit_scale", "logit_bias")}
    scalars = {n: p.detach().float().reshape(()) for n, p in scale_and_bias.items() if p is not None}
    save_file(scalars, folder / CALIBRATION)


def _adapter_config(model: DualEncoder) -> dict[str, Any]:
    base_class = type(model.hf_base)
    config = model.hf_model.peft_config["default"].to_dict() | {
        # peft would record the folder in the local cache.
        "base_model_name_or_path": model.base,
        "revision": model.revision,
        "inference_mode": True,
        # Names the class of the base for peft's own loader; its list of tasks has none for two towers.
        "auto_mapping": {"base_model_class": base_class.__name__, "parent_library": base_class.__module__},
    }
    # A set has another order in every process; a file should not.
    return {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
