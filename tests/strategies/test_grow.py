"""Grown towers: the embeddings of the base before the first step, new weights that learn, and plain folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModel

from domainclip.config import loading as loading_config
from domainclip.errors import ModelError, RecipeError
from domainclip.models import dual_encoder, growth, loading
from domainclip.models.saving import save_model
from domainclip.pipelines.finetune import finetune
from domainclip.report.results_file import load as load_results
from domainclip.strategies.grow import Grow
from domainclip.training.run_context import RunOptions
from tests.support import tiny_models
from tests.support.tiny_models import noise, stack

TEXTS = ["a red circle", "a dog on the left"]


def _embeddings(model: dual_encoder.DualEncoder) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = stack(model.image_preprocessor(noise(40, 36, seed=i)) for i in range(3))
    with torch.no_grad():
        return model.encode_image(pixels), model.encode_text(model.text_tokenizer(TEXTS))


@pytest.mark.parametrize("make", [tiny_models.tiny_clip, tiny_models.tiny_siglip])
def test_a_grown_model_has_the_embeddings_of_the_base_and_is_a_plain_one(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    base, model = (loading.load_model(make(tmp_path / "base")) for _ in range(2))
    Grow(image_layers=2, text_layers=1, mlp_factor=3, momentum=0.5).learning_rates(model)
    assert (model.depth("image"), model.depth("text")) == (4, 3)
    for grown, before in zip(_embeddings(model), _embeddings(base), strict=True):
        assert torch.allclose(grown, before, atol=1e-6)
    save_model(model, tmp_path / "model")
    plain, info = AutoModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert plain.config.vision_config.num_hidden_layers == 4
    for again, grown in zip(
        _embeddings(loading.load_model(tmp_path / "model")), _embeddings(model), strict=True
    ):
        assert torch.equal(again, grown)


def test_neurons_and_layers_by_hand() -> None:
    old_in, old_out = nn.Linear(2, 2), nn.Linear(2, 1)
    with torch.no_grad():
        old_in.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        old_in.bias.copy_(torch.tensor([5.0, 6.0]))
        old_out.weight.copy_(torch.tensor([[7.0, 8.0]]))
        old_out.bias.fill_(9.0)
    wide = growth._more_neurons(old_in, 2, 1.0)
    assert wide.weight.tolist() == [[1, 2], [3, 4], [1, 2], [3, 4]]
    assert wide.bias.tolist() == [5, 6, 5, 6]
    out = growth._more_inputs(old_out, 2)
    assert out.weight.tolist() == [[7, 8, 0, 0]]
    x = torch.tensor([[1.0, -1.0]])
    assert torch.equal(out(wide(x).relu()), old_out(old_in(x).relu()))
    # ρ θ + (1 − ρ) ε: at ρ = 0 nothing but the mean and the spread is inherited.
    weight = torch.arange(1000.0)
    assert torch.equal(growth._mixed(weight, 1.0), weight)
    torch.manual_seed(0)
    drawn = growth._mixed(weight, 0.0)
    assert abs(float(drawn.mean() - weight.mean())) < 30
    torch.manual_seed(0)
    assert torch.allclose(growth._mixed(weight, 0.75), 0.75 * weight + 0.25 * drawn)


def test_what_is_new_learns_and_copies_do_not_stay_copies(base: Path) -> None:
    model = loading.load_model(base)
    factors = Grow(image_layers=1, trained="new", train_logit_scale=False).learning_rates(model)
    learning = {name for name, factor in factors.items() if factor > 0}
    assert learning == {name for name in factors if name.startswith("image/vision_model.encoder.layers.2.")}
    weights = model.weights()
    optimizer = torch.optim.SGD([weights[name] for name in learning], lr=0.1)
    before = _embeddings(loading.load_model(base))[0]
    for _ in range(2):
        pixels = stack(model.image_preprocessor(noise(40, 36, seed=i)) for i in range(3))
        model.encode_image(pixels)[:, 0].sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not torch.allclose(_embeddings(model)[0], before, atol=1e-5)
    new, old = (weights[f"image/vision_model.encoder.layers.{i}.mlp.fc1.weight"] for i in (2, 1))
    assert not torch.equal(new, old)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"image_layers": 0},
            "strategy.grow: with image_layers: 0, text_layers: 0 and mlp_factor: 1 nothing grows",
        ),
        ({"image_layers": 3}, "last_layers: 3 is not between 1 and 2"),
    ],
)
def test_what_is_refused(base: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Grow(**options).learning_rates(loading.load_model(base))
    assert str(caught.value).startswith(message)


def test_a_tower_that_is_normalised_behind_its_layers_is_refused(tmp_path: Path) -> None:
    model = loading.load_model(tiny_models.tiny_chinese_clip(tmp_path / "base"))
    with pytest.raises(ModelError, match="family chinese_clip cannot grow"):
        Grow().learning_rates(model)


def test_a_run_of_the_recipe_grows_the_base(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    columns = "{image: file_name, texts: text, labels: label, group: group_id, split: split}"
    changes = [
        f"corpus={{path: {corpus}, min_items: 1, templates: ['a {{}} square'], columns: {columns}}}",
        *(f"base.path={base}", "train.epochs=1", "train.batch_size=20", "anchor_texts.count=32"),
        *("probes=[zero_shot]", "evaluate.bootstrap_samples=100", "strategy.grow.text_layers=1"),
    ]
    finetune(loading_config.load_recipe("grow", changes), RunOptions(folder=tmp_path / "run", quiet=True))
    assert load_results(tmp_path / "run" / "results.json").run["strategy"] == "grow"
    model = loading.load_model(tmp_path / "run")
    assert (model.depth("image"), model.depth("text")) == (4, 3)
