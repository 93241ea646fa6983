"""Loads towers, plain or with an adapter, from a folder or the Hub."""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from domainclip.errors import DomainclipError, ModelError, did_you_mean
from domainclip.models import checkpoint_files, frame_pooling, hf_loading
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.saving import quiet, read_calibration


def load_model(base: str | Path, revision: str | None = None) -> DualEncoder:
    """Towers in evaluation mode, from a local folder or a Hub id; a run's adapter comes on its own base.

    `revision` is a branch, tag or commit of a Hub id; the commit that was loaded is kept.

    Raises: ModelError in one line, for whatever cannot be found, read or used.
    """
    folder, commit = checkpoint_files.find_checkpoint(str(base), revision)
    adapter = (folder / checkpoint_files.ADAPTER_CONFIG).is_file()
    loaded = _load_adapter(str(base), folder) if adapter else _load_plain(str(base), folder, commit)
    if (folder / checkpoint_files.POOLING).is_file():
        with _reading(str(base), checkpoint_files.POOLING):
            frame_pooling.load_pooling(loaded, folder)
    return loaded.eval()


def families() -> list[str]:
    """The model types that can be loaded; each is one file."""
    return sorted(file.stem for file in (Path(__file__).parent / "families").glob("[!_]*.py"))


def _load_plain(base: str, folder: Path, commit: str | None) -> DualEncoder:
    family = _family(base, folder)
    hint = ", but a revision refs/pr/<number> may have them" if commit else ""
    hint = f"; pickles such as pytorch_model.bin are not read, for they can run code{hint}"
    checkpoint_files.require_files(base, folder, "weights", checkpoint_files.WEIGHTS, hint)
    # Without its files, transformers makes up an empty tokenizer.
    checkpoint_files.require_files(base, folder, "tokenizer", checkpoint_files.TOKENIZERS)
    checkpoint_files.require_files(base, folder, "image processor", checkpoint_files.PROCESSORS)
    with _reading(base, "model"):
        model = _load_model(base, folder)
        # Otherwise an adapter would be recorded as belonging to a folder in the local cache.
        model.name_or_path = model.config.name_or_path = base
    with _reading(base, "tokenizer"):
        tokenizer = hf_loading.load_tokenizer(folder)
    with _reading(base, "image processor"):
        processor = hf_loading.load_image_processor(folder)
    return family(model, tokenizer, processor, base, commit).eval()


def _load_model(base: str, folder: Path) -> Any:
    model, report = hf_loading.load_hf_model(folder, ignore_mismatched_sizes=True)
    # A model with weights made up at random must not be measured.
    if report["missing_keys"]:
        raise ModelError(f'base "{base}": its file has no weight "{min(report["missing_keys"])}"')
    for name, there, wanted in sorted(report["mismatched_keys"]):
        # Some checkpoints hold scale and bias as one-element vectors, some as scalars.
        if name not in ("logit_scale", "logit_bias") or there.numel() != 1:
            shapes = f"has the shape {list(there)}, but its config asks for {list(wanted)}"
            raise ModelError(f'base "{base}": its weight "{name}" {shapes}')
        getattr(model, name).data.copy_(_read_weight(folder, name).reshape(wanted))
    return model


def _load_adapter(name: str, adapter: Path) -> DualEncoder:
    checkpoint_files.require_files(name, adapter, "adapter weights", (checkpoint_files.ADAPTER,))
    with _reading(name, "adapter"):
        config = json.loads((adapter / checkpoint_files.ADAPTER_CONFIG).read_text())
        base, revision = str(config["base_model_name_or_path"]), config.get("revision")
    try:
        folder, commit = checkpoint_files.find_checkpoint(base, revision)
        if (folder / checkpoint_files.ADAPTER_CONFIG).is_file():
            raise ModelError(f'base "{base}" is an adapter itself; merge that one first')
        model = _load_plain(base, folder, commit)
    except ModelError as error:
        raise ModelError(f'adapter "{name}": {error}') from None
    with _reading(name, "adapter"), warnings.catch_warnings():
        from peft import PeftModel

        warnings.filterwarnings("error", message="Found missing adapter keys")
        model.hf_model = PeftModel.from_pretrained(model.hf_base, str(adapter))
        if (adapter / checkpoint_files.CALIBRATION).is_file():
            read_calibration(model.hf_base, adapter)
    return model.eval()


def _family(base: str, folder: Path) -> type[DualEncoder]:
    checkpoint_files.require_files(base, folder, "model", ("config.json",))
    with _reading(base, "config.json"):
        model_type = str(json.loads((folder / "config.json").read_text()).get("model_type"))
    stem = model_type.replace("-", "_")
    if stem not in families():
        way_out = did_you_mean(stem, families())
        raise ModelError(f'base "{base}": the model type "{model_type}" is not supported; {way_out}')
    module = importlib.import_module(f"domainclip.models.families.{stem}")
    family: type[DualEncoder] = getattr(module, "".join(word.capitalize() for word in stem.split("_")))
    return family


def _read_weight(folder: Path, name: str) -> Tensor:
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, "pt") as stored:
            if name in stored.keys():  # noqa: SIM118 - it is no mapping
                value: Tensor = stored.get_tensor(name)
                return value
    raise KeyError(name)


@contextmanager
def _reading(base: str, what: str) -> Iterator[None]:
    """Whatever a library throws at a damaged or foreign file, as one line of ours."""
    try:
        with quiet():
            yield
    except DomainclipError:
        raise
    except Exception as error:
        reason = checkpoint_files.in_one_line(error)
        raise ModelError(f'base "{base}": its {what} cannot be read: {reason}') from error
