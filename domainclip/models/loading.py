"""Load a dual encoder, with or without an adapter, from a folder or the Hub."""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from domainclip.errors import DomainclipError, ModelError, did_you_mean
from domainclip.models import checkpoint_files, folder_checks, hf_loading
from domainclip.models.captioner import Captioner
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.frame_pooling import MODULE_NAME, FramePooling
from domainclip.models.hf_loading import quiet
from domainclip.models.hyperbolic_space import HyperbolicSpace
from domainclip.models.open_clip.checkpoint import load_parts
from domainclip.models.open_clip.config import is_open_clip
from domainclip.models.plain_weights import make_plain_base
from domainclip.models.saved_scorer import load_scorer
from domainclip.models.saving import read_calibration


def load_model(base: str | Path, revision: str | None = None) -> DualEncoder:
    """The model in evaluation mode, from a local folder or a Hub id; an adapter is loaded onto its own base.

    `revision` is a branch, tag or commit of a Hub id; the model records the commit that was loaded.

    Raises: ModelError in one line, for whatever cannot be found, read or used.
    """
    if (inside := folder_checks.run_model(Path(base).expanduser())) is not None:
        base = inside
    folder, commit = checkpoint_files.find_checkpoint(str(base), revision)
    return _load(str(base), folder, commit, ())


def families() -> list[str]:
    """The model types that can be loaded; each is one file."""
    return sorted(file.stem for file in (Path(__file__).parent / "families").glob("[!_]*.py"))


def _load(base: str, folder: Path, commit: str | None, above: tuple[Path, ...]) -> DualEncoder:
    """The model in a folder; `above` are the adapters that are loaded onto it."""
    is_adapter = (folder / checkpoint_files.ADAPTER_CONFIG).is_file()
    model = _load_adapter(base, folder, above) if is_adapter else _load_plain(base, folder, commit)
    if (folder / checkpoint_files.POOLING).is_file():
        with _reading(base, checkpoint_files.POOLING):
            _load_frame_pooling(model, folder)
    if (folder / checkpoint_files.SCORER).is_file():
        with _reading(base, checkpoint_files.SCORER):
            model.scorer = load_scorer(folder)
    # Those of a base belong to its own embeddings, and not to those of an adapter on it.
    captioner, space = folder / checkpoint_files.CAPTIONER, folder / checkpoint_files.SPACE
    with _reading(base, "captioner"):
        model.captioner = Captioner.load(captioner) if captioner.is_file() else None
    with _reading(base, "hyperbolic space"):
        model.space = HyperbolicSpace.load(space) if space.is_file() else None
    return model.eval()


def _load_plain(base: str, folder: Path, commit: str | None) -> DualEncoder:
    folder_checks.check_folder(base, folder, on_hub=commit is not None)
    if is_open_clip(folder):
        with _reading(base, "model"):
            parts = load_parts(base, folder, commit)
        parts.hf_model.name_or_path = parts.hf_model.config.name_or_path = base
        return family_class(parts.hf_model.config.model_type)(*parts, base, commit).eval()
    family = _family(base, folder)
    # Without its files, transformers makes up an empty tokenizer.
    hint = folder_checks.missing_tokenizer(folder)
    checkpoint_files.require_files(base, folder, "tokenizer", checkpoint_files.TOKENIZERS, hint)
    if not (folder / "tokenizer.json").is_file() and (folder / "vocab.json").is_file():
        checkpoint_files.require_files(base, folder, "merges of the tokenizer", ("merges.txt",), hint)
    checkpoint_files.require_files(base, folder, "image processor", checkpoint_files.PROCESSORS, hint)
    weights = checkpoint_files.find_weights(base, folder, commit, folder_checks.other_weights(folder))
    with _reading(base, "model"):
        hf_model = _load_hf_model(base, folder, weights)
        # Otherwise an adapter would be recorded as belonging to a folder in the local cache.
        hf_model.name_or_path = hf_model.config.name_or_path = base
    with _reading(base, "tokenizer"):
        hf_tokenizer = hf_loading.load_tokenizer(folder)
    with _reading(base, "image processor"):
        processor = hf_loading.load_image_processor(folder)
    return family(hf_model, hf_tokenizer, processor, base, commit).eval()


def _load_hf_model(base: str, folder: Path, weights: Path) -> Any:
    hf_model, report = hf_loading.load_hf_model(folder, weights, ignore_mismatched_sizes=True)
    # A model with weights initialized at random must not be evaluated.
    if report["missing_keys"]:
        missing = f'its file has no weight "{min(report["missing_keys"])}"'
        raise ModelError(f'base "{base}": {missing}: write the whole model with save_pretrained')
    for name, stored, expected in sorted(report["mismatched_keys"]):
        # Some checkpoints hold scale and bias as one-element vectors, some as scalars.
        if name not in ("logit_scale", "logit_bias") or stored.numel() != 1:
            shapes = f"has the shape {list(stored)}, but its config requires {list(expected)}"
            raise ModelError(f'base "{base}": its weight "{name}" {shapes}')
        getattr(hf_model, name).data.copy_(_read_weight(weights, name).reshape(expected))
    return hf_model


def _load_adapter(name: str, adapter: Path, above: tuple[Path, ...]) -> DualEncoder:
    folder_checks.check_adapter(name, adapter)
    hint = folder_checks.converted_adapter(adapter)
    checkpoint_files.require_files(name, adapter, "adapter weights", (checkpoint_files.ADAPTER,), hint)
    with _reading(name, "adapter"):
        config = json.loads((adapter / checkpoint_files.ADAPTER_CONFIG).read_text(encoding="utf-8-sig"))
    base, revision = folder_checks.adapter_base(name, adapter, config)
    try:
        base = str(folder_checks.run_model(Path(base).expanduser()) or base)
        folder, commit = checkpoint_files.find_checkpoint(base, revision)
        if folder.resolve() in (*above, adapter.resolve()):
            folder_checks.refuse(base, "an adapter that names itself as its base: name the base that it had")
        model = _load(base, folder, commit, (*above, adapter.resolve()))
        make_plain_base(model, base, commit)
    except ModelError as error:
        raise ModelError(f'adapter "{name}": {error}') from None
    with _reading(name, "adapter"), warnings.catch_warnings():
        from peft import PeftModel

        warnings.filterwarnings("error", message="Found missing adapter keys")
        model.hf_model = PeftModel.from_pretrained(model.hf_base, str(adapter))
        if (adapter / checkpoint_files.CALIBRATION).is_file():
            read_calibration(model.hf_base, adapter)
    return model.eval()


def _load_frame_pooling(model: DualEncoder, folder: Path) -> None:
    data = json.loads((folder / checkpoint_files.POOLING).read_text(encoding="utf-8"))
    pooling = FramePooling.parse(data)
    with torch.random.fork_rng(devices=[]):  # the initial weights are replaced below
        model.set_frame_pooling(pooling)
    if MODULE_NAME in model.added_modules:
        weights = load_file(folder / checkpoint_files.POOLING_WEIGHTS)
        model.added_modules[MODULE_NAME].load_state_dict(weights)


def _family(base: str, folder: Path) -> type[DualEncoder]:
    hint = ": name the folder of a checkpoint, or one of the Hub, such as openai/clip-vit-base-patch32"
    checkpoint_files.require_files(base, folder, "model", ("config.json",), hint)
    with _reading(base, "config.json"):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8-sig"))
    stem = folder_checks.check_config(base, config, families())
    if stem not in families():
        hint = did_you_mean(stem, families())
        raise ModelError(f'base "{base}": the model type "{config["model_type"]}" is not supported; {hint}')
    return family_class(stem)


def _stem(model_type: str) -> str:
    return model_type.replace("-", "_")


def family_class(model_type: str) -> type[DualEncoder]:
    """The class of a model type of transformers that is supported."""
    stem = _stem(model_type)
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
def _reading(base: str, component: str) -> Iterator[None]:
    """Turn any exception of a library about a damaged or foreign file into a ModelError of one line."""
    try:
        with quiet():
            yield
    except DomainclipError:
        raise
    except Exception as error:
        reason = checkpoint_files.in_one_line(error)
        if isinstance(error, SafetensorError):
            reason = f"{reason}; the file is incomplete or damaged: download it again"
        raise ModelError(f'base "{base}": its {component} cannot be read: {reason}') from error
