"""Bases as people have them load, or are named with a remedy that works as it is typed."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from domainclip.errors import ModelError
from domainclip.models.folder_checks import check_folder
from domainclip.models.loading import load_model

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 8586236\n"
PROCESSOR = "preprocessor_config.json"


@pytest.fixture
def base(clip_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clip_folder, tmp_path / "my base"))


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def fault(base: object) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(str(base))
    assert "\n" not in str(caught.value)
    return str(caught.value).partition(": ")[2]


def old_sizes(data: dict[str, Any]) -> None:
    del data["image_processor_type"], data["do_rescale"], data["rescale_factor"], data["do_convert_rgb"]
    data.update(feature_extractor_type="CLIPFeatureExtractor", size=32, crop_size=32)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(image_processor_type="CLIPFeatureExtractor"),
        lambda data: data.update(image_processor_type="CLIPImageProcessorFast"),
        lambda data: data.update(image_processor_type="CLIPImageProcessorPil"),
        lambda data: data.pop("image_processor_type"),
        old_sizes,
    ],
    ids=["feature extractor", "fast", "pil", "none", "sizes of old versions"],
)
def test_older_image_processors(
    base: Path, clip_folder: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    edit(base / PROCESSOR, change)
    loaded = load_model(base).image_preprocessor
    assert loaded == load_model(clip_folder).image_preprocessor
    data = json.loads((base / PROCESSOR).read_text())
    (base / PROCESSOR).unlink()  # as versions from 4.50 on nest it
    (base / "processor_config.json").write_text(json.dumps({"image_processor": data}))
    assert load_model(base).image_preprocessor == loaded


@pytest.mark.parametrize("name", ["CLIPProcessor", "MyImageProcessor"])
def test_an_unknown_image_processor(base: Path, name: str) -> None:
    edit(base / PROCESSOR, lambda data: data.update(image_processor_type=name))
    assert fault(base) == (
        f"its image processor cannot be read: image_processor_type {name} is unknown: "
        "write that of its family, as CLIPImageProcessor"
    )


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", PROCESSOR])
def test_files_that_were_never_fetched(base: Path, name: str) -> None:
    file = base / name
    file.write_text(POINTER)
    assert fault(base) == (
        f"{name} is a pointer of Git LFS, not the file: fetch it: cd {shlex.quote(str(base))} && git lfs pull"
    )
    file.write_text("")
    assert fault(base) == f"{name} is empty: download it again"
    file.write_text("<!DOCTYPE html><html>")
    assert fault(base) == f"{name} is a web page: download it again, from its address with /resolve/main/"
    file.write_bytes(b"\xef\xbb\xbf{}")
    assert fault(base) == f"{name} begins with a byte order mark: save it as UTF-8 without one"


def test_files_that_are_not_read_are_not_checked(base: Path) -> None:
    (base / "trainer_state.json").write_text("")
    (base / "README.txt").write_text(POINTER)
    assert load_model(base).family == "clip"


def shards(base: Path) -> list[Path]:
    whole = base / "model.safetensors"
    weights = sorted(load_file(whole).items())
    whole.unlink()
    parts = [base / f"model-0000{i + 1}-of-00003.safetensors" for i in range(3)]
    for i, part in enumerate(parts):
        save_file(dict(weights[i::3]), part, {"format": "pt"})
    names = {name: parts[i].name for i in range(3) for name, _ in weights[i::3]}
    index = {"metadata": {"total_size": 1}, "weight_map": names}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    return parts


def test_weights_in_several_files(base: Path, clip_folder: Path) -> None:
    parts = shards(base)
    loaded, whole = load_model(base).weights(), load_model(clip_folder).weights()
    assert all(torch.equal(weight, whole[name]) for name, weight in loaded.items())
    parts[1].unlink()
    assert fault(base) == "model-00002-of-00003.safetensors is missing: download it again"
    parts[1].write_text(POINTER)
    assert fault(base).startswith("model-00002-of-00003.safetensors is a pointer of Git LFS")


def test_an_adapter_in_a_pickle_is_converted_as_the_message_states(base: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    torch.save({"a": torch.ones(2)}, adapter / "adapter_model.bin")
    *_, code = shlex.split(fault(adapter).partition("convert it: ")[2])
    exec(code, {})
    assert load_file(adapter / "adapter_model.safetensors")["a"].tolist() == [1, 1]
    (adapter / "adapter_config.json").write_text("{}")
    assert fault(adapter) == (
        f"its adapter names no base: write it as base_model_name_or_path into {adapter}/adapter_config.json"
    )


@pytest.mark.parametrize("inner", ["0_CLIPModel", "checkpoint-1000", "snapshots/abc", "model"])
def test_a_model_in_an_inner_folder(base: Path, tmp_path: Path, inner: str) -> None:
    outer = tmp_path / "outer"
    shutil.copytree(base, outer / inner)
    if inner.startswith("checkpoint"):
        shutil.copytree(base, outer / "checkpoint-500")
    kind = "a folder of sentence-transformers" if inner == "0_CLIPModel" else "a folder"
    message = fault(outer)
    assert message == f"{kind}, with its model in the folder {inner}: base={outer / inner}"
    load_model(message.rpartition("base=")[2])


def test_an_inner_folder_on_the_hub(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "commit" / "0_CLIPModel")
    with pytest.raises(ModelError) as caught:
        check_folder("sentence-transformers/clip-ViT-B-32", tmp_path / "commit", on_hub=True)
    assert str(caught.value).endswith(
        'hf download sentence-transformers/clip-ViT-B-32 --include "0_CLIPModel/*" '
        "--local-dir clip-ViT-B-32, then base=clip-ViT-B-32/0_CLIPModel"
    )


@pytest.mark.parametrize("exported", [False, True])
def test_a_run_folder_is_a_base(base: Path, tmp_path: Path, exported: bool) -> None:
    run = tmp_path / "run"
    for name in ("model", "export")[: 1 + exported]:
        shutil.copytree(base, run / name)
    (run / "recipe.yaml").write_text("name: a\n")
    assert load_model(run).base == str(run / ("export" if exported else "model"))


def foreign(folder: Path, name: str, content: str = "x") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(
    ("name", "content", "start"),
    [
        (
            "open_clip_config.json",
            "{}",
            "open_clip_config.json: 'embed_dim' is missing: download it again",
        ),
        (
            "open_clip_model.safetensors",
            "x",
            "weights of open_clip without their open_clip_config.json: copy it beside them",
        ),
        (
            "clip.gguf",
            "x",
            "GGUF weights cannot be trained: name the checkpoint that they were exported from",
        ),
        ("onnx/model.onnx", "x", "ONNX weights cannot be trained"),
        ("openvino_model.xml", "x", "OpenVINO weights cannot be trained"),
        (
            "ViT-B-32.pt",
            "x",
            "no config.json, and pickles, which can run code: name the same model in the form",
        ),
        (
            "modules.json",
            "[]",
            "a text model of sentence-transformers, without an image tower: name a base with",
        ),
        (
            "notes.txt",
            "x",
            "no model in the folder, such as config.json: name the folder of a checkpoint, or one",
        ),
        ("config.json", "[]", "its config.json is no mapping of keys to values"),
        ("config.json", '{"architectures": []}', "its config.json has no model_type: add it, for example"),
        (
            "config.json",
            '{"architecture": "vit_base"}',
            "an image model, without a text tower: name a base with both",
        ),
        ("config.json", '{"model_type": "clip_vision_model"}', "an image model, without a text tower"),
        ("config.json", '{"model_type": "dinov2"}', "an image model, without a text tower"),
        (
            "config.json",
            '{"model_type": "xlm-roberta"}',
            "a text model, without an image tower: name a base with both",
        ),
        ("config.json", '{"model_type": "siglip_text_model"}', "a text model, without an image tower"),
        (
            "config.json",
            '{"model_type": "jina_clip", "auto_map": {}}',
            "its repository holds code, which is never run",
        ),
        (
            "config.json",
            '{"model_type": "clip", "quantization_config": {"a": 1}}',
            "its weights are quantized, and",
        ),
        (
            "config.json",
            '{"model_type": "clip"}',
            "no tokenizer in the folder",
        ),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, name: str, content: str, start: str) -> None:
    assert fault(foreign(tmp_path / "folder", name, content)).startswith(start)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("tf_model.h5", ", only those of TensorFlow: name a revision"),
        ("model.onnx", "; ONNX weights cannot be trained"),
    ],
)
def test_weights_of_other_libraries(base: Path, name: str, reason: str) -> None:
    (base / "model.safetensors").rename(base / name)
    assert fault(base).startswith(f"no weights in the folder, such as model.safetensors{reason}")


def test_missing_files_of_the_tokenizer(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = json.loads((base / "tokenizer.json").read_text())["model"]
    (base / "tokenizer.json").unlink()
    edit(base / "config.json", lambda data: data.update(_name_or_path="lab/clip"))
    command = "hf download lab/clip --include"
    assert (
        f"no tokenizer in the folder, such as tokenizer.json: copy the files of the base that it was trained from: {command}"
        in fault(base)
    )
    (base / "vocab.json").write_text(json.dumps(tokens["vocab"]))
    assert fault(base).startswith("no merges of the tokenizer in the folder, such as merges.txt")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokens["merges"]]
    (base / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    load_model(base)
    (base / PROCESSOR).unlink()
    message = fault(base)
    assert message.startswith("no image processor in the folder")
    _accepted(message.partition("trained from: ")[2], monkeypatch)


def _accepted(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words of a command are those that the Hub's program takes."""
    words = shlex.split(command)
    assert words[:2] == ["hf", "download"]
    options = [word for word in words[2:] if word.startswith("--")]
    assert set(options) == {"--include", "--local-dir"}
    assert len(words) == 3 + 2 * len(options)


@pytest.mark.parametrize(
    ("name", "start"),
    [
        (
            "https://huggingface.co/openai/clip-vit-base-patch32/tree/main",
            "base=openai/clip-vit-base-patch32",
        ),
        ("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "base=laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("ViT-B/32", "base=openai/clip-vit-base-patch32"),
        ("ViT-L-14", "base=openai/clip-vit-large-patch14"),
        ("models/ViT-B-32.pt", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("clip.gguf", "name the checkpoint that they were exported from"),
    ],
)
def test_names_of_other_libraries(name: str, start: str) -> None:
    assert fault(name).endswith(start)


def test_a_file_in_place_of_its_folder(base: Path) -> None:
    message = fault(base / "model.safetensors")
    assert message == f"a file: give the folder that holds it: base={shlex.quote(str(base))}"
