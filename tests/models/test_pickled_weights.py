"""Checkpoints that are stored as pickles: the same model, converted once, and no program is run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file

from domainclip import disk_cache
from domainclip.errors import ModelError
from domainclip.models import pickled_weights
from domainclip.models.loading import load_model
from domainclip.pipelines.cache import cache_rows


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def base(clip_folder: Path, tmp_path: Path) -> Path:
    """The checkpoint without its weights."""
    return Path(
        shutil.copytree(clip_folder, tmp_path / "base", ignore=shutil.ignore_patterns("*.safetensors"))
    )


@pytest.fixture
def weights(clip_folder: Path) -> dict[str, torch.Tensor]:
    return load_file(clip_folder / "model.safetensors")


def assert_same_model(base: Path, clip_folder: Path) -> None:
    expected = load_model(clip_folder).weights()
    loaded = load_model(base).weights()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in loaded.items())


def fault(base: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(base)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f'base "{base}": ')


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {f"module.{name}": weight for name, weight in weights.items()},
    ],
    ids=["plain", "of a training", "of several devices"],
)
def test_a_pickle_is_the_same_model(base: Path, clip_folder: Path, weights: Any, wrapped: Any) -> None:
    torch.save(wrapped(weights), base / "pytorch_model.bin")
    assert_same_model(base, clip_folder)


def test_the_format_before_torch_1_6(base: Path, clip_folder: Path, weights: Any) -> None:
    torch.save(weights, base / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert_same_model(base, clip_folder)


def test_an_index_of_several(base: Path, clip_folder: Path, weights: Any) -> None:
    names, places = sorted(weights), {}
    for part, some in (("pytorch_model-1.bin", names[::2]), ("pytorch_model-2.bin", names[1::2])):
        torch.save({name: weights[name] for name in some}, base / part)
        places |= dict.fromkeys(some, part)
    (base / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    assert_same_model(base, clip_folder)
    (base / "pytorch_model-2.bin").unlink()
    assert fault(base) == "pytorch_model-2.bin is missing: download it again"


def test_tensors_that_share_memory(tmp_path: Path) -> None:
    """A tied weight, and a view of a larger tensor, which safetensors itself refuses or would write whole."""
    table = torch.arange(12.0).reshape(3, 4)
    torch.save({"a": table, "b": table, "c": table[1], "d": table.T}, tmp_path / "pytorch_model.bin")
    stored = load_file(pickled_weights.convert("x", tmp_path, "pytorch_model.bin") / "model.safetensors")
    expected = {"a": table, "b": table, "c": table[1], "d": table.T}
    assert all(torch.equal(stored[name], value) for name, value in expected.items())


def test_it_is_converted_once_for_each_content(
    base: Path, weights: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    load = torch.load
    monkeypatch.setattr(
        torch, "load", lambda file, **options: reads.append(file.name) or load(file, **options)
    )
    torch.save(weights, base / "pytorch_model.bin")
    for _ in range(3):
        load_model(base)
    assert reads == ["pytorch_model.bin"]
    os.utime(base / "pytorch_model.bin", (0, 0))  # the content counts, not the date
    load_model(base)
    assert len(reads) == 1
    torch.save({**weights, "logit_scale": weights["logit_scale"] + 1}, base / "pytorch_model.bin")
    assert load_model(base).scale > 30
    assert len(reads) == 2
    assert [entry.kind for entry in disk_cache.entries()] == ["weights", "weights"]
    assert "weights, converted from pytorch_model.bin" in [content for *_, content in cache_rows()]


class _Bomb:
    """Whoever unpickles it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


def test_a_pickle_that_needs_more_is_refused_by_name(base: Path, weights: Any, tmp_path: Path) -> None:
    """Fault 36."""
    torch.save({**weights, "x": _Bomb(tmp_path / "ran")}, base / "pytorch_model.bin")
    assert fault(base) == (
        f"pytorch_model.bin holds more than weights ({os.name}.mkdir) and is not loaded: "
        "name a revision or another base that has model.safetensors"
    )
    assert not (tmp_path / "ran").exists()
    assert not disk_cache.entries()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"PK\x03\x04 cut short", "pytorch_model.bin is incomplete or damaged: download it again"),
        (b"", "pytorch_model.bin is empty: download it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
            "pytorch_model.bin is a pointer of Git LFS, not the file: fetch it: cd",
        ),
    ],
)
def test_what_is_no_pickle(base: Path, content: bytes, expected: str) -> None:
    (base / "pytorch_model.bin").write_bytes(content)
    assert fault(base).startswith(expected)


def test_a_list_is_no_mapping(base: Path) -> None:
    torch.save([torch.ones(2)], base / "pytorch_model.bin")
    assert fault(base).startswith("pytorch_model.bin is no mapping of names to weights: name a revision")


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
def test_a_torchscript_program(base: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), base / "pytorch_model.bin")
    assert fault(base).startswith("pytorch_model.bin is a TorchScript program, which is not run: name a")


def test_an_older_torch_reads_no_pickle(base: Path, weights: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(weights, base / "pytorch_model.bin")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    assert fault(base) == (
        'pytorch_model.bin is a pickle, which torch 2.5.1+cpu does not read safely: pip install "torch>=2.6"'
    )


def test_a_cache_that_cannot_be_written(base: Path, weights: Any, tmp_path: Path) -> None:
    torch.save(weights, base / "pytorch_model.bin")
    (tmp_path / "cache").write_text("")
    assert fault(base).startswith("pytorch_model.bin cannot be converted: ")
    assert fault(base).endswith("or name another folder with DOMAINCLIP_CACHE")


def test_from_the_hub_it_is_fetched_only_where_there_is_nothing_else(
    base: Path, clip_folder: Path, weights: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        if "pytorch_model*.bin" in allow_patterns:
            torch.save(weights, base / "pytorch_model.bin")
        return str(base)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_model("lab/clip").revision == "base"
    assert len(asked) == 2
    assert not any("bin" in pattern for pattern in asked[0])
    shutil.copy(clip_folder / "model.safetensors", base)
    load_model("lab/clip")
    assert len(asked) == 3
