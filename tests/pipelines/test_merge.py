"""Merged weights say what the adapter said, and the check that says so can fail."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import transformers
from peft.tuners.lora import LoraModel
from safetensors.torch import load_file, save_file

from domainclip.errors import DomainclipError, ModelError, RecipeError
from domainclip.models import dual_encoder, loading
from domainclip.models.saving import save_model
from domainclip.pipelines.merge import _difference, _outputs, merge
from domainclip.strategies.lora import Lora
from tests.support import tiny_models
from tests.support.run_folders import made_run


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("merge") / "run")


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "run"))


def test_merged_equals_adapter_in_plain_transformers(run: Path, template: Path, tmp_path: Path) -> None:
    """Fault 16."""
    difference = merge(run, tmp_path / "out")
    assert 0 < difference <= 1e-5
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        *("README.md", "config.json", "model.safetensors", "preprocessor_config.json"),
        *("tokenizer.json", "tokenizer_config.json"),
    ]
    adapter = loading.load_model(run / "model")
    plain = transformers.CLIPModel.from_pretrained(tmp_path / "out")
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    text = adapter.text_tokenizer(["a cat", "a small round spot on the left", "x"])
    with torch.no_grad():
        expected = adapter.hf_base(**text, pixel_values=pixels)
        found = plain(**text, pixel_values=pixels)
    torch.testing.assert_close(found.image_embeds, expected.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.text_embeds, expected.text_embeds, atol=1e-5, rtol=0)
    assert torch.equal(plain.logit_scale.exp(), adapter.scale)


def test_merged_is_not_the_base(run: Path, template: Path, tmp_path: Path) -> None:
    """Fault 16."""
    merge(run, tmp_path / "out")
    base, merged = loading.load_model(template.parent / "base"), loading.load_model(tmp_path / "out")
    for before, after in zip(_outputs(base)[:3], _outputs(merged)[:3], strict=True):
        assert (before - after).abs().max() > 1e-2


@pytest.mark.parametrize(
    "family", ["tiny_siglip", "tiny_siglip2_naflex", "tiny_dual_encoder", "tiny_chinese_clip"]
)
@pytest.mark.parametrize("options", [{}, {"rslora": True}, {"dora": True}], ids=str)
def test_every_family_and_variant(tmp_path: Path, family: str, options: dict[str, bool]) -> None:
    model = loading.load_model(getattr(tiny_models, family)(tmp_path / "base"))
    factors = Lora(rank=2, **options).learning_rates(model)
    with torch.no_grad():
        for name, weight in model.weights().items():
            if factors[name] > 0:
                weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    save_model(model, tmp_path / "run" / "model")
    assert merge(tmp_path / "run", tmp_path / "out") <= 1e-5
    again = loading.load_model(tmp_path / "out")
    assert torch.equal(again.scale, model.scale)
    if model.bias is None:
        assert again.bias is None
    else:
        assert again.bias is not None
        assert torch.equal(again.bias, model.bias)


def test_plain_weights_are_the_same(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", lora=False)
    assert merge(run, tmp_path / "out") == 0.0
    before, after = (load_file(folder / "model.safetensors") for folder in (run / "model", tmp_path / "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_card_speaks_of_plain_weights(run: Path, tmp_path: Path) -> None:
    merge(run, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "library_name: transformers\n" in text
    assert "PeftModel" not in text
    assert "library_name: peft\n" in (run / "README.md").read_text()


def test_a_damaged_factor_is_noticed(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is merged differs from what was measured: the check must see it, and leave nothing."""
    whole = LoraModel.merge_and_unload

    def damaged(model: LoraModel, **options: bool) -> object:
        with torch.no_grad():
            next(w for n, w in model.named_parameters() if ".lora_B." in n).mul_(1.2)
        return whole(model, **options)

    monkeypatch.setattr(LoraModel, "merge_and_unload", damaged)
    message = _fault(ModelError, run, tmp_path / "out")
    start, end = (
        f"{run}: the merged weights differ from the adapter by ",
        (", more than 1e-05; nothing is written: the adapter may be damaged"),
    )
    assert message.startswith(start)
    assert message.endswith(end)
    assert 1e-5 < float(message.removeprefix(start).removesuffix(end)) < 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run"]


def test_a_scale_that_is_lost_is_noticed(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(model: dual_encoder.DualEncoder, folder: Path) -> None:
        model.hf_base.logit_scale.data.fill_(2.0)
        save_model(model, folder)

    monkeypatch.setattr("domainclip.pipelines.merge.save_model", forgetful)
    assert "more than 1e-05" in _fault(ModelError, run, tmp_path / "out")


def test_no_number_is_no_agreement() -> None:
    assert not _difference([torch.tensor([1.0, 2.0])], [torch.tensor([1.0, float("nan")])]) <= 1e-5


def test_weights_that_are_no_numbers(run: Path, tmp_path: Path) -> None:
    file = run / "model" / "adapter_model.safetensors"
    weights = load_file(file)
    next(w for n, w in weights.items() if ".lora_B." in n).fill_(float("nan"))
    save_file(weights, file, {"format": "pt"})
    message = _fault(ModelError, run, tmp_path / "out")
    assert message.startswith(f"{run}: its adapter cannot be merged: NaNs detected in the merged weights.")
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert (
        _fault(RecipeError, run, tmp_path / "out") == f"{tmp_path}/out: exists already; name another folder"
    )


def test_no_run(tmp_path: Path) -> None:
    assert _fault(ModelError, tmp_path / "run", tmp_path / "out") == (
        f"{tmp_path}/run: no folder model there: name a run folder, as runs/medical_xray-1"
    )


def test_a_full_disk(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("domainclip.pipelines.merge.os.rename", full)
    assert _fault(ModelError, run, tmp_path / "out") == (
        f"{tmp_path}/out: cannot be written: No space left on device"
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run"]


def _fault(kind: type[DomainclipError], run: Path, out: Path) -> str:
    with pytest.raises(kind) as caught:
        merge(run, out)
    return str(caught.value)
