"""Exported plain weights give the embeddings of the adapter, and the check of that can fail."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from peft.tuners.lora import LoraModel
from PIL import Image
from safetensors.torch import load_file, save_file

from domainclip.errors import DomainclipError, ModelError
from domainclip.models import dual_encoder, loading
from domainclip.models.saving import save_model
from domainclip.pipelines.export.export import export
from domainclip.pipelines.export.record import ExportRecord
from domainclip.pipelines.export.request import make_request
from domainclip.pipelines.export.source import outputs
from domainclip.strategies.lora import Lora
from tests.support import tiny_models
from tests.support.run_folders import made_run


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("export") / "run")


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "run"))


def plain(run: Path, out: Path) -> ExportRecord:
    return export(make_request(run, "transformers", out))


def difference(result: ExportRecord) -> float:
    assert result.check is not None
    return result.check.largest_difference


def test_exported_equals_adapter_in_plain_transformers(run: Path, tmp_path: Path) -> None:
    """Fault 16."""
    result = plain(run, tmp_path / "out")
    assert 0 < difference(result) <= 1e-5
    assert result.check is not None
    assert (result.check.items, result.check.items_of) == (32, "generated images")  # /data/corpus is nowhere
    assert result.check.same_first_text == 1.0
    assert result.check.largest_difference_resized <= 1e-5
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        *("README.md", "config.json", "export.json", "model.safetensors", "preprocessor_config.json"),
        *("tokenizer.json", "tokenizer_config.json"),
    ]
    adapter = loading.load_model(run / "model")
    model = transformers.CLIPModel.from_pretrained(tmp_path / "out")
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    text = adapter.text_tokenizer(["a cat", "a small round spot on the left", "x"])
    with torch.no_grad():
        expected = adapter.hf_base(**text, pixel_values=pixels)
        found = model(**text, pixel_values=pixels)
    torch.testing.assert_close(found.image_embeds, expected.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.text_embeds, expected.text_embeds, atol=1e-5, rtol=0)
    assert torch.equal(model.logit_scale.exp(), adapter.scale)


def test_exported_is_not_the_base(run: Path, template: Path, tmp_path: Path) -> None:
    """Fault 16."""
    plain(run, tmp_path / "out")
    base = outputs(loading.load_model(template.parent / "base"))
    exported = outputs(loading.load_model(tmp_path / "out"))
    assert np.abs(base.images - exported.images).max() > 1e-2
    assert np.abs(base.texts - exported.texts).max() > 1e-2
    assert abs(base.scale - exported.scale) > 1e-2


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("tiny_siglip", {"rslora": True}),
        ("tiny_siglip2_naflex", {"dora": True}),
        ("tiny_dual_encoder", {"dora": True}),
        ("tiny_chinese_clip", {"rslora": True}),
        ("tiny_metaclip_2", {}),
    ],
)
def test_every_family_and_variant(tmp_path: Path, family: str, options: dict[str, bool]) -> None:
    model = loading.load_model(getattr(tiny_models, family)(tmp_path / "base"))
    factors = Lora(rank=2, **options).learning_rates(model)
    with torch.no_grad():
        for name, weight in model.weights().items():
            if factors[name] > 0:
                weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    save_model(model, tmp_path / "run" / "model")
    assert difference(plain(tmp_path / "run", tmp_path / "out")) <= 1e-5
    again = loading.load_model(tmp_path / "out")
    assert torch.equal(again.scale, model.scale)
    if model.bias is None:
        assert again.bias is None
    else:
        assert again.bias is not None
        assert torch.equal(again.bias, model.bias)


def test_the_zero_shot_pipeline_loads_the_folder(run: Path, tmp_path: Path) -> None:
    plain(run, tmp_path / "out")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    pipeline = transformers.pipeline(
        "zero-shot-image-classification", model=str(tmp_path / "out"), backend="pil"
    )
    answers = pipeline(image, candidate_labels=["cat", "dog"], hypothesis_template="a photo of a {}")
    model = loading.load_model(run / "model")
    with torch.no_grad():
        cosines = (
            model.encode_image(tiny_models.stack([model.image_preprocessor(image)]))
            @ model.encode_text(model.text_tokenizer(["a photo of a cat", "a photo of a dog"])).T
        )
        expected = (cosines * model.scale).softmax(-1)[0].tolist()
    found = {answer["label"]: answer["score"] for answer in answers}
    assert [found["cat"], found["dog"]] == pytest.approx(expected, abs=1e-4)


def test_plain_weights_are_the_same(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", lora=False)
    assert difference(plain(run, tmp_path / "out")) <= 1e-6
    before, after = (load_file(folder / "model.safetensors") for folder in (run / "model", tmp_path / "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_no_path_of_this_machine_leaves(run: Path, tmp_path: Path) -> None:
    plain(run, tmp_path / "out")
    for name in ("export.json", "README.md", "tokenizer_config.json", "preprocessor_config.json"):
        assert str(tmp_path.parent) not in (tmp_path / "out" / name).read_text(), name


def test_the_card_is_of_plain_weights(run: Path, tmp_path: Path) -> None:
    plain(run, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "library_name: transformers\n" in text
    assert "PeftModel" not in text
    assert "library_name: peft\n" in (run / "README.md").read_text()


def test_a_damaged_factor_is_noticed(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exported weights differ from those that were measured: the check must notice, and leave nothing."""
    whole = LoraModel.merge_and_unload

    def damaged(model: LoraModel, **options: bool) -> object:
        with torch.no_grad():
            next(w for n, w in model.named_parameters() if ".lora_B." in n).mul_(1.2)
        return whole(model, **options)

    monkeypatch.setattr(LoraModel, "merge_and_unload", damaged)
    message = _fault(ModelError, run, tmp_path / "out")
    start = f"{run}: the exported model differs from that of the run by "
    end = (
        ", more than 1e-05; nothing is written: the adapter may be damaged, or "
        f"transformers {transformers.__version__} may read the files in another way"
    )
    assert message.startswith(start)
    assert message.endswith(end)
    assert 1e-5 < float(message.removeprefix(start).removesuffix(end)) < 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run"]


def test_a_scale_that_is_lost_is_noticed(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(model: dual_encoder.DualEncoder, folder: Path) -> None:
        model.hf_base.logit_scale.data.fill_(2.0)
        save_model(model, folder)

    monkeypatch.setattr("domainclip.pipelines.export.transformers_form.save_model", forgetful)
    assert "more than 1e-05" in _fault(ModelError, run, tmp_path / "out")


def test_no_number_is_no_agreement(run: Path) -> None:
    one = outputs(loading.load_model(run / "model"))
    broken = replace(one, texts=np.where(np.arange(16) == 3, np.nan, one.texts))
    assert one.difference(one) == 0
    assert not one.difference(broken) <= 2
    assert not broken.difference(one) <= 2


def test_weights_that_are_no_numbers(run: Path, tmp_path: Path) -> None:
    file = run / "model" / "adapter_model.safetensors"
    weights = load_file(file)
    next(w for n, w in weights.items() if ".lora_B." in n).fill_(float("nan"))
    save_file(weights, file, {"format": "pt"})
    message = _fault(ModelError, run, tmp_path / "out")
    assert message.startswith(f"{run}: its adapter cannot be merged: NaNs detected in the merged weights.")
    assert not (tmp_path / "out").exists()


def test_unchecked(run: Path, tmp_path: Path) -> None:
    assert export(make_request(run, "transformers", tmp_path / "out", check=False)).check is None
    assert json.loads((tmp_path / "out/export.json").read_text())["check"] is None


def test_a_full_disk(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("domainclip.pipelines.export.export.os.rename", full)
    assert _fault(ModelError, run, tmp_path / "out") == (
        f"{tmp_path}/out: cannot be written: No space left on device"
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run"]


def _fault(kind: type[DomainclipError], run: Path, out: Path) -> str:
    with pytest.raises(kind) as caught:
        plain(run, out)
    return str(caught.value)
