"""Name what a folder holds instead of a checkpoint of transformers, and how to get one from it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any, NoReturn

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from domainclip.errors import ModelError

NO_NAME = "no such folder, and not a name that the Hub could have"
_POINTER = b"version https://git-lfs.github.com/spec/"
_LARGEST_POINTER = 1024  # bytes
_READ = re.compile(  # files that are read here or by transformers
    r"(model.*|adapter_model)\.safetensors|pytorch_model.*\.bin|.*\.model|(vocab|merges)\.txt"
    r"|(.*config|tokenizer|vocab|special_tokens_map|added_tokens|model\.safetensors\.index"
    r"|pytorch_model\.bin\.index)\.json"
)
_EXPORTS = {
    "*.gguf": "GGUF",
    "*.onnx": "ONNX",
    "onnx/*.onnx": "ONNX",
    "openvino_model.xml": "OpenVINO",
    "*.mlpackage": "Core ML",
    "*.tflite": "TensorFlow Lite",
    "*.engine": "TensorRT",
}
_OTHER_WEIGHTS = {"tf_model.h5": "TensorFlow", "flax_model.msgpack": "Flax", "rust_model.ot": "Rust"}
_OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_EXAMPLE = "openai/clip-vit-base-patch32"
_IMAGE_MODELS = (
    "vit|deit|beit|dinov2|dinov3|swin|convnext|resnet|regnet|ijepa|hiera|efficientnet|mobilenet|mobilevit|timm|"
    "levit|pvt"
)
_TEXT_MODELS = "bert|distilbert|roberta|xlm|camembert|deberta|electra|mpnet|modernbert|albert|ernie"
_DECODERS = "gpt|llama|qwen|mistral|gemma|phi|t5|mt5|bart|mbart"
_IMAGE_ONLY = f"an image model, without a text tower: name a base with both, such as {_EXAMPLE}"
# Names of the original release and of open_clip.
_ALIASES = {
    "vit-b/32": _EXAMPLE,
    "vit-b-32": _EXAMPLE,
    "vit-b/16": "openai/clip-vit-base-patch16",
    "vit-b-16": "openai/clip-vit-base-patch16",
    "vit-l/14": "openai/clip-vit-large-patch14",
    "vit-l-14": "openai/clip-vit-large-patch14",
    "vit-l/14@336px": "openai/clip-vit-large-patch14-336",
    "vit-l-14-336": "openai/clip-vit-large-patch14-336",
}
_ADDRESS = re.compile(r"(?:https?://(?:www\.)?huggingface\.co/|hf-hub:|hf://)(?:models/)?([\w.-]+/[\w.-]+)")


def refuse(base: str, fault: str) -> NoReturn:
    """Raise a ModelError that names the base."""
    raise ModelError(f'base "{base}": {fault}')


def run_model(folder: Path) -> Path | None:
    """The folder of the model in a run folder, merged if it was merged; None: no run folder.

    Raises: ModelError for a run of several seeds, which has a model for each, and for a run without a model.
    """
    if (folder / "config.json").exists() or not (folder / "recipe.yaml").is_file():
        return None
    model = next((folder / name for name in ("export", "model") if (folder / name).is_dir()), None)
    seeds = sorted(run.name for run in folder.glob("seed-*") if (run / "recipe.yaml").is_file())
    if model is None and seeds:
        refuse(
            str(folder), f"a run of {len(seeds)} seeds, each with its model: name one: {folder / seeds[0]}"
        )
    if model is None:
        finish = f"domainclip finetune --resume --run-dir {shlex.quote(str(folder))}"
        refuse(str(folder), f"a run that has no model yet: finish it: {finish}")
    return model


def check_name(base: str) -> None:
    """Refuse a base that is the path of a file, an address, or a name of another library.

    Raises: ModelError that names the folder or the name to give.
    """
    path = Path(base)
    if match := _ADDRESS.match(base):
        refuse(base, f"an address: write the name alone: base={match[1]}")
    if base.lower() in _ALIASES:
        refuse(base, f"a name of another library: base={_ALIASES[base.lower()]}")
    if path.suffix in (".pt", ".pth", ".ckpt", ".bin", ".pkl"):
        refuse(base, f"a pickle, which can run code: {_converted()}")
    if kind := next((kind for pattern, kind in _EXPORTS.items() if path.match(pattern)), None):
        refuse(base, _exported(kind))
    if path.expanduser().is_file():
        refuse(base, f"a file: give the folder that holds it: base={shlex.quote(str(path.parent))}")


def check_base(base: str) -> None:
    """Refuse a base that is no folder of this machine and can be no model of the Hub; nothing is asked there.

    Raises: ModelError.
    """
    if Path(base).expanduser().is_dir():
        return
    check_name(base)
    try:
        validate_repo_id(base)
    except HFValidationError:
        refuse(base, NO_NAME)


def check_folder(base: str, folder: Path, on_hub: bool) -> None:
    """Refuse a folder that is no checkpoint of transformers, or is incomplete.

    Raises: ModelError that names its kind and the remedy.
    """
    for file in sorted(folder.iterdir()):
        if file.is_file():
            _check_content(base, folder, file, on_hub)
    if not any((folder / name).is_file() for name in ("config.json", "open_clip_config.json")):
        _refuse_foreign(base, folder, on_hub)
    _check_shards(base, folder)


def check_adapter(base: str, folder: Path) -> None:
    """Refuse an adapter whose files were never downloaded.

    Raises: ModelError that names the file and the remedy.
    """
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if (folder / name).is_file():
            _check_content(base, folder, folder / name, on_hub=False)


def adapter_base(base: str, folder: Path, config: Any) -> tuple[str, str | None]:
    """Name and revision of the base of an adapter.

    Raises: ModelError when its config names none.
    """
    origin = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(origin, str) or not origin:
        file = folder / "adapter_config.json"
        refuse(base, f"its adapter names no base: write it as base_model_name_or_path into {file}")
    revision = config.get("revision")
    return origin, revision if isinstance(revision, str) else None


def check_config(base: str, config: Any, known: list[str]) -> str:
    """The model type in config.json, where it is supported: `known` are the supported ones.

    Raises: ModelError that names what the model is instead.
    """
    if not isinstance(config, dict):
        refuse(base, "its config.json is no mapping of keys to values: copy that of its base")
    kind = config.get("model_type")
    if not isinstance(kind, str) and "architecture" in config:
        refuse(base, _IMAGE_ONLY)
    if not isinstance(kind, str):
        refuse(base, 'its config.json has no model_type: add it, for example "model_type": "clip"')
    stem = kind.replace("-", "_")
    if stem not in known:
        _refuse_unknown(base, stem, config)
    if config.get("quantization_config"):
        refuse(
            base,
            "its weights are quantized, and cannot be trained: name the checkpoint of full weights",
        )
    return stem


def _refuse_unknown(base: str, stem: str, config: dict[str, Any]) -> None:
    """Refuse what is recognised as another kind of model."""
    if "auto_map" in config:
        refuse(base, f"its repository holds code, which is never run: name another base, such as {_EXAMPLE}")
    if stem.endswith("_vision_model") or re.match(f"({_IMAGE_MODELS})(?![a-z])", stem):
        refuse(base, _IMAGE_ONLY)
    if stem.endswith("_text_model") or re.match(f"({_TEXT_MODELS})(?![a-z])", stem):
        refuse(base, f"a text model, without an image tower: {_with_tower(base)}")
    if re.match(f"({_DECODERS})(?![a-z])", stem):
        refuse(base, f"a text model, without an image tower: name a base with both, such as {_EXAMPLE}")


def missing_tokenizer(folder: Path) -> str:
    """The command that fetches tokenizer and image processor of the base that a model was trained from."""
    name = _read_json(folder / "config.json").get("_name_or_path")
    origin = name if isinstance(name, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", name) else "OWNER/NAME"
    target = shlex.quote(str(folder))
    return (
        ": copy the files of the base that it was trained from: "
        f'hf download {origin} --include "*token*" --include "*processor*" --include "vocab*" '
        f"--include merges.txt --local-dir {target}"
    )


def other_weights(folder: Path) -> str:
    """The remedy where only weights of other libraries are there."""
    for name, library in _OTHER_WEIGHTS.items():
        if (folder / name).is_file():
            return f", only those of {library}: name a revision or another base that has model.safetensors"
    for pattern, kind in _EXPORTS.items():
        if any(folder.glob(pattern)):
            return f"; {_exported(kind)}"
    return ": copy them there, or download the checkpoint again"


def converted_adapter(folder: Path) -> str:
    """The remedy where an adapter is stored as a pickle."""
    if not (folder / "adapter_model.bin").is_file():
        return ": copy it there"
    old, new = (json.dumps(str(folder / f"adapter_model.{end}")) for end in ("bin", "safetensors"))
    load = f"torch.load({old}, weights_only=True)"
    code = f"import torch; from safetensors.torch import save_file; save_file({load}, {new})"
    return f"; adapter_model.bin is a pickle, which can run code: convert it: python -c {shlex.quote(code)}"


def _check_content(base: str, folder: Path, file: Path, on_hub: bool) -> None:
    """Refuse a file whose content was never downloaded."""
    if not _READ.fullmatch(file.name):
        return
    with file.open("rb") as stream:
        begin = stream.read(64)
    again = "download it again"
    if begin.startswith(_POINTER) and file.stat().st_size <= _LARGEST_POINTER:
        fetch = "git lfs pull" if on_hub else f"cd {shlex.quote(str(folder))} && git lfs pull"
        refuse(base, f"{file.name} is a pointer of Git LFS, not the file: fetch it: {fetch}")
    if not begin:
        refuse(base, f"{file.name} is empty: {again}")
    if begin.startswith(b"\xef\xbb\xbf"):
        refuse(base, f"{file.name} begins with a byte order mark: save it as UTF-8 without one")
    if begin.lstrip().lower().startswith((b"<!doctype", b"<html")):
        refuse(base, f"{file.name} is a web page: {again}, from its address with /resolve/main/")


def _check_shards(base: str, folder: Path) -> None:
    shards = _read_json(folder / "model.safetensors.index.json").get("weight_map")
    for name in sorted({str(name) for name in shards.values()}) if isinstance(shards, dict) else []:
        if not (folder / name).is_file():
            refuse(base, f"{name} is missing: download it again")


def _refuse_foreign(base: str, folder: Path, on_hub: bool) -> None:
    if any((folder / name).is_file() for name in _OPEN_CLIP):
        refuse(base, "weights of open_clip without their open_clip_config.json: copy it beside them")
    inner = [file.parent for file in (*folder.glob("*/config.json"), *folder.glob("*/*/config.json"))]
    if inner:
        _refuse_nested(base, folder, max(inner, key=_number), on_hub)
    if (folder / "modules.json").is_file():
        refuse(base, "a text model of sentence-transformers, without an image tower: " + _with_tower(base))
    for pattern, kind in _EXPORTS.items():
        if any(folder.glob(pattern)):
            refuse(base, _exported(kind))
    if any(file.suffix in (".pt", ".pth", ".ckpt", ".bin") for file in folder.iterdir()):
        refuse(base, f"no config.json, and pickles, which can run code: {_converted()}")


def _refuse_nested(base: str, folder: Path, inner: Path, on_hub: bool) -> None:
    name = inner.relative_to(folder).as_posix()
    is_library = (folder / "modules.json").is_file() or "CLIPModel" in name
    fault = (
        f"a folder{' of sentence-transformers' if is_library else ''}, with its model in the folder {name}"
    )
    place = base.rpartition("/")[2]
    if on_hub:
        refuse(
            base,
            f'{fault}: hf download {base} --include "{name}/*" --local-dir {place}, then base={place}/{name}',
        )
    refuse(base, f"{fault}: base={shlex.quote(str(inner))}")


def _number(folder: Path) -> tuple[int, str]:
    """The number at the end of a name: the newest of checkpoint-500, checkpoint-1000."""
    match = re.search(r"checkpoint-(\d+)$", folder.name)
    return (int(match[1]) if match else -1, folder.name)


def _exported(kind: str) -> str:
    return f"{kind} weights cannot be trained: name the checkpoint that they were exported from"


def _converted() -> str:
    names = f"{_EXAMPLE} or laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    return f"name the same model in the form of transformers, such as {names}"


def _with_tower(base: str) -> str:
    strategy = shlex.quote(f"strategy={{replace_text_tower: {{encoder: {base}}}}}")
    return f"name a base with both, and use this for its texts: base={_EXAMPLE} {strategy}"


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
