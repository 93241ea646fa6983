from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from domainclip.errors import ModelError
from domainclip.models import loading
from domainclip.models.loading import load_model
from domainclip.models.saving import save_model
from tests.support.tiny_models import tiny_clip, tiny_siglip


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def fault(base: Path | str) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(base)
    return str(caught.value)


def test_families_are_the_files() -> None:
    assert loading.families() == [
        "altclip",
        "chinese_clip",
        "clip",
        "clip_ensemble",
        "metaclip_2",
        "open_clip",
        "siglip",
        "siglip2",
        "tipsv2",
        "vision_text_dual_encoder",
    ]


def test_loads_for_evaluation_with_everything_fp32(tmp_path: Path) -> None:
    folder = rewrite(tiny_clip(tmp_path), lambda w: w.update({n: t.half() for n, t in w.items()}))
    model = load_model(folder)
    assert not model.training
    assert not model.hf_base.training
    stored = load_file(folder / "model.safetensors")
    for name, weight in model.weights().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, stored[name.split("/")[1]].float())


@pytest.mark.skipif(sys.platform != "linux", reason="maps of a process")
def test_weights_are_mapped_from_their_file(tmp_path: Path) -> None:
    """Processes that load the same base share its pages: none has a copy of its own."""
    base = tiny_clip(tmp_path / "base")
    loaded = loading.load_model(base)
    loaded.to(torch.device("cpu", 1))  # the device of the second process, as Accelerate numbers it
    mapped = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(base / "model.safetensors")):
            first, last = line.split()[0].split("-")
            mapped.append(range(int(first, 16), int(last, 16)))
    assert mapped
    matrices = [weight for weight in loaded.parameters() if weight.ndim > 1]
    assert len(matrices) > 8
    assert all(any(weight.data_ptr() in pages for pages in mapped) for weight in matrices)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_scale_and_bias_of_either_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    scalars = {"logit_scale": torch.full(shape, 3.5)}
    clip = load_model(rewrite(tiny_clip(tmp_path / "clip"), lambda w: w.update(scalars)))
    assert clip.hf_base.logit_scale.tolist() == 3.5
    assert clip.scale.shape == ()
    scalars["logit_bias"] = torch.full(shape, -3.0)
    siglip = load_model(rewrite(tiny_siglip(tmp_path / "siglip"), lambda w: w.update(scalars)))
    assert siglip.hf_base.logit_scale.tolist() == [3.5]
    assert siglip.bias is not None
    assert siglip.bias.tolist() == -3.0


def test_a_missing_weight_is_refused(tmp_path: Path) -> None:
    folder = rewrite(tiny_clip(tmp_path), lambda w: w.pop("visual_projection.weight"))
    assert (
        fault(folder)
        == f'base "{folder}": its file has no weight "visual_projection.weight": write the whole model with save_pretrained'
    )


def test_a_weight_of_another_shape(tmp_path: Path) -> None:
    folder = rewrite(tiny_clip(tmp_path), lambda w: w.update({"text_projection.weight": torch.zeros(8, 32)}))
    assert fault(folder) == (
        f'base "{folder}": its weight "text_projection.weight" has the shape [8, 32], '
        "but its config requires [16, 32]"
    )


def test_a_truncated_file(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    assert fault(folder) == (
        f'base "{folder}": its model cannot be read: Error while deserializing header: invalid header length; '
        "the file is incomplete or damaged: download it again"
    )


@pytest.mark.parametrize(
    ("file", "component"),
    [
        ("config.json", "model"),
        ("tokenizer.json", "tokenizer"),
        ("preprocessor_config.json", "image processor"),
    ],
)
def test_a_file_that_is_missing(tmp_path: Path, file: str, component: str) -> None:
    folder = tiny_clip(tmp_path)
    (folder / file).unlink()
    assert fault(folder).startswith(f'base "{folder}": no {component} in the folder, such as {file}: ')


@pytest.mark.parametrize(
    ("file", "component"),
    [
        ("config.json", "config.json"),
        ("tokenizer.json", "tokenizer"),
        ("preprocessor_config.json", "image processor"),
    ],
)
def test_a_file_that_is_damaged_is_named_in_one_line(tmp_path: Path, file: str, component: str) -> None:
    folder = tiny_clip(tmp_path)
    (folder / file).write_text('{"a"')
    message = fault(folder)
    assert message.startswith(f'base "{folder}": its {component} cannot be read: ')
    assert "\n" not in message


@pytest.mark.parametrize(
    ("model_type", "hint"),
    [
        ("clipp", 'did you mean "clip"?'),
        ("siglip_2", 'did you mean "siglip2"?'),
        ("owlvit", None),
        ("unknown", None),
    ],
)
def test_an_unknown_family(tmp_path: Path, model_type: str, hint: str | None) -> None:
    folder = tiny_clip(tmp_path)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    known = f"known: {', '.join(loading.families())}."
    assert fault(folder) == (
        f'base "{folder}": the model type "{model_type}" is not supported; {hint or known}'
    )


def adapter(base: Path, folder: Path) -> Path:
    model = load_model(base)
    targets = model.lora_targets("text", "attention", 1)
    model.hf_model = get_peft_model(model.hf_model, LoraConfig(r=2, target_modules=targets))
    save_model(model, folder)
    return folder


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_an_adapter_whose_base_is_gone(clip_folder: Path, tmp_path: Path) -> None:
    folder = adapter(clip_folder, tmp_path / "adapter")
    gone = str(tmp_path / "gone")
    edit(folder, base_model_name_or_path=gone)
    assert fault(folder) == (
        f'adapter "{folder}": base "{gone}": no such folder, and not a name that the Hub could have'
    )


def test_an_adapter_that_names_itself(clip_folder: Path, tmp_path: Path) -> None:
    folder = adapter(clip_folder, tmp_path / "adapter")
    edit(folder, base_model_name_or_path=str(folder))
    assert fault(folder) == (
        f'adapter "{folder}": base "{folder}": an adapter that names itself as its base: '
        "name the base that it had"
    )


def test_an_adapter_without_its_weights(clip_folder: Path, tmp_path: Path) -> None:
    folder = adapter(clip_folder, tmp_path / "adapter")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    assert fault(folder).startswith(
        f'base "{folder}": no adapter weights in the folder, such as adapter_model.safetensors; '
        "adapter_model.bin is a pickle, which can run code: convert it: python -c "
    )


def test_an_adapter_with_half_its_weights(clip_folder: Path, tmp_path: Path) -> None:
    folder = adapter(clip_folder, tmp_path / "adapter")
    weights = load_file(folder / "adapter_model.safetensors")
    save_file(dict(list(weights.items())[1:]), folder / "adapter_model.safetensors")
    message = fault(folder)
    assert message.startswith(f'base "{folder}": its adapter cannot be read: Found missing adapter keys')
    assert "\n" not in message
