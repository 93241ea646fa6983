"""Writes towers as folders that plain transformers and peft load, without this package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from domainclip.errors import ModelError
from domainclip.models import frame_pooling
from domainclip.models.checkpoint_files import ADAPTER, ADAPTER_CONFIG, CALIBRATION

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder


def save_model(model: DualEncoder, folder: Path) -> None:
    """Write model or adapter, tokenizer and image processor; see `Towers.save`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with quiet():
            if model.hf_model is model.hf_base:
                model.hf_model.save_pretrained(folder)
            else:
                _save_adapter(model, folder)
            _forget_last_call(model.tokenizer)
            model.tokenizer.save_pretrained(folder)
            model.processor.save_pretrained(folder)
            frame_pooling.save_pooling(model, folder)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ModelError(f"{folder}: the model cannot be written: {why}; make room, then continue") from None


def weights_not_saved(model: DualEncoder, state: dict[str, Tensor] | None = None) -> str | None:
    """A weight that learns and that the adapter around the model does not hold, if there is one.

    `state` is what it holds, when that is known.
    """
    if model.hf_model is model.hf_base:
        return None
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model.hf_model, save_embedding_layers=False) if state is None else state
    kept = {value.data_ptr() for value in state.values()}
    beside = ("scale/", "bias/", f"image/{frame_pooling.MODULE_NAME}.", "extra/third.")
    learn = {name: weight for name, weight in model.weights().items() if weight.requires_grad}
    return next((n for n, w in learn.items() if not n.startswith(beside) and w.data_ptr() not in kept), None)


def read_calibration(model: Any, folder: Path) -> None:
    """Put the scale and bias that stand beside an adapter into the model."""
    for name, value in load_file(folder / CALIBRATION).items():
        parameter = getattr(model, name)
        parameter.data.copy_(value.reshape(parameter.shape))


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no notes from transformers, whose faults are turned into errors of our own."""
    log = transformers.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()


def _forget_last_call(tokenizer: Any) -> None:
    # A tokenizer keeps the padding and truncation of its last call, would write them into its file, and
    # whoever loads that would find other defaults than the base has.
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_padding()
        backend.no_truncation()


def _save_adapter(model: DualEncoder, folder: Path) -> None:
    from peft import get_peft_model_state_dict

    # With embedding layers on "auto", peft would ask the Hub about the base.
    state = get_peft_model_state_dict(model.hf_model, save_embedding_layers=False)
    if name := weights_not_saved(model, state):
        raise ModelError(f'the weight "{name}" learns, but no adapter holds it; merge before saving')
    save_file({name: value.contiguous() for name, value in state.items()}, folder / ADAPTER, {"format": "pt"})
    (folder / ADAPTER_CONFIG).write_text(json.dumps(_adapter_config(model), indent=2, sort_keys=True))
    scale_and_bias = {n: getattr(model.hf_base, n, None) for n in ("logit_scale", "logit_bias")}
    scalars = {n: p.detach().float().reshape(()) for n, p in scale_and_bias.items() if p is not None}
    save_file(scalars, folder / CALIBRATION)


def _adapter_config(model: DualEncoder) -> dict[str, Any]:
    plain = type(model.hf_base)
    config = model.hf_model.peft_config["default"].to_dict() | {
        # peft would record the folder in the local cache.
        "base_model_name_or_path": model.base,
        "revision": model.revision,
        "inference_mode": True,
        # Tells peft's own loader what class the base is; its list of tasks has none for two towers.
        "auto_mapping": {"base_model_class": plain.__name__, "parent_library": plain.__module__},
    }
    # A set has another order in every process; a file should not.
    return {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
