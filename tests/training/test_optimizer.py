"""Learning-rate schedule and parameter groups, against values worked out by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from domainclip.config.training import TrainConfig
from domainclip.errors import RecipeError
from domainclip.models import loading
from domainclip.models.dual_encoder import DualEncoder
from domainclip.training.optimizer import (
    learning_rate_factor,
    make_optimizer,
    moment,
    require_optimizer,
    set_rate,
)

# Every parameter of the tiny model's text tower that weight decay leaves alone, without its layer.
UNDECAYED_TEXT = {
    "embeddings.token_embedding.weight",
    "embeddings.position_embedding.weight",
    "final_layer_norm.weight",
    "final_layer_norm.bias",
    *(f"{module}.bias" for module in ("k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2")),
    *(f"layer_norm{number}.{kind}" for number in (1, 2) for kind in ("weight", "bias")),
}
DECAYED_TEXT = {
    "text_projection.weight",
    *(f"{module}.weight" for module in ("k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2")),
}


@pytest.fixture
def model(base: Path) -> DualEncoder:
    return loading.load_model(base)


@pytest.mark.parametrize(
    ("total", "warmup", "factors"),
    [
        # Four steps of ten up to the peak; then cos of 0, 30, 60, 90, 120 and 150 degrees.
        (10, 0.4, [0.25, 0.5, 0.75, 1.0, 1.0, 0.9330127, 0.75, 0.5, 0.25, 0.0669873]),
        # Without warm-up the first step has the full rate; then cos of 0, 45, 90 and 135 degrees.
        (5, 0.0, [1.0, 1.0, 0.8535534, 0.5, 0.1464466]),
        # 0.1 of 16 steps is rounded to two; 14 steps of cosine remain.
        (16, 0.1, [0.5, 1.0, 1.0, 0.9874639]),
        (1, 0.0, [1.0]),
        (1, 0.9, [1.0]),
    ],
)
def test_warm_up_and_cosine(total: int, warmup: float, factors: list[float]) -> None:
    values = [learning_rate_factor(step, total, warmup) for step in range(len(factors))]
    assert values == pytest.approx(factors, abs=1e-7)


@pytest.mark.parametrize(("total", "warmup"), [(10, 0.4), (2, 0.5)])
def test_the_cosine_ends_at_zero_one_step_after_the_last(total: int, warmup: float) -> None:
    assert learning_rate_factor(total, total, warmup) == pytest.approx(0, abs=1e-12)


def test_a_run_of_one_step_has_no_cosine_to_divide_by() -> None:
    assert learning_rate_factor(1, 1, 0.0) == 1.0


def _group_of_each_weight(
    model: DualEncoder, optimizer: torch.optim.Optimizer
) -> dict[str, dict[str, float]]:
    groups = {id(weight): group for group in optimizer.param_groups for weight in group["params"]}
    return {name: groups[id(weight)] for name, weight in model.weights().items() if id(weight) in groups}


def _without_layer(name: str) -> str:
    """`text/text_model.encoder.layers.1.mlp.fc1.bias` -> `fc1.bias`; other names lose their prefix alone."""
    name = name.removeprefix("text/").removeprefix("text_model.")
    return ".".join(name.split(".")[-2:]) if ".layers." in name else name


def _factors(model: DualEncoder) -> dict[str, float]:
    """The image tower is locked, the text tower learns at half the rate, the scale at the full one."""
    by_tower = {"image": 0.0, "text": 0.5, "scale": 1.0}
    return {name: by_tower[name.split("/")[0]] for name in model.weights()}


def test_weight_decay_by_name(model: DualEncoder) -> None:
    train = TrainConfig(weight_decay=0.2)
    groups = _group_of_each_weight(model, make_optimizer(model, _factors(model), train, 1e-3))
    decayed = {name for name, group in groups.items() if group["weight_decay"] == 0.2}
    undecayed = {name for name, group in groups.items() if group["weight_decay"] == 0.0}
    assert {_without_layer(name) for name in decayed} == DECAYED_TEXT
    assert {_without_layer(name) for name in undecayed if name.startswith("text/")} == UNDECAYED_TEXT
    assert {name for name in undecayed if not name.startswith("text/")} == {"scale/logit_scale"}
    assert decayed | undecayed == {name for name in model.weights() if not name.startswith("image/")}


def test_image_embeddings_of_class_and_position_are_not_decayed(model: DualEncoder) -> None:
    factors = dict.fromkeys(model.weights(), 1.0)
    groups = _group_of_each_weight(model, make_optimizer(model, factors, TrainConfig(), 1e-3))
    decay = {
        name.removeprefix("image/vision_model.embeddings."): group["weight_decay"]
        for name, group in groups.items()
        if name.startswith("image/vision_model.embeddings.")
    }
    assert decay == {"class_embedding": 0.0, "position_embedding.weight": 0.0, "patch_embedding.weight": 0.1}


def test_a_group_for_each_rate_and_decay(model: DualEncoder) -> None:
    optimizer = make_optimizer(model, _factors(model), TrainConfig(weight_decay=0.2), 1e-3)
    groups = {(group["peak"], group["weight_decay"]) for group in optimizer.param_groups}
    assert groups == {(5e-4, 0.2), (5e-4, 0.0), (1e-3, 0.0)}
    assert len(optimizer.param_groups) == 3
    assert all(group["lr"] == group["peak"] for group in optimizer.param_groups)
    set_rate(optimizer, 0.25)
    rates = {(group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert rates == {(1.25e-4, 0.2), (1.25e-4, 0.0), (2.5e-4, 0.0)}


def test_without_a_gradient_decay_alone_moves_a_weight(model: DualEncoder) -> None:
    optimizer = make_optimizer(model, _factors(model), TrainConfig(weight_decay=0.2), 1e-3)
    before = {name: weight.detach().clone() for name, weight in model.weights().items()}
    for group in optimizer.param_groups:
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
    set_rate(optimizer, 0.5)
    optimizer.step()
    for name, weight in model.weights().items():
        # Half of 5e-4 times 0.2: a decayed weight loses 5e-5 of itself.
        decayed = name.startswith("text/") and _without_layer(name) in DECAYED_TEXT
        factor = 1 - 5e-5 if decayed else 1.0
        torch.testing.assert_close(weight.detach(), before[name] * factor, rtol=1e-7, atol=0, msg=name)


def test_embeddings_of_tokens_without_captions_stay_as_they_are(model: DualEncoder) -> None:
    optimizer = make_optimizer(model, _factors(model), TrainConfig(weight_decay=0.5), 1e-2)
    table = model.weights()["text/text_model.embeddings.token_embedding.weight"]
    tokens = model.text_tokenizer(["a red square"])
    before, used = table.detach().clone(), tokens["input_ids"].unique()
    for _ in range(3):
        model.encode_text(tokens).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    changed = (table.detach() != before).any(dim=1).nonzero().flatten()
    assert changed.tolist() == used.tolist()


def test_a_missing_library_is_named_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    require_optimizer(TrainConfig(optimizer="adamw"))
    with pytest.raises(RecipeError, match=r"^train\.optimizer: adamw8bit needs bitsandbytes: pip install"):
        require_optimizer(TrainConfig(optimizer="adamw8bit"))


def test_adamw_keeps_the_step_as_a_tensor_and_others_as_a_number() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    value = torch.tensor(7.0)
    assert moment(torch.optim.AdamW([weight]), "step", value) is value
    other = moment(torch.optim.SGD([weight]), "step", value)
    assert (type(other), other) == (int, 7)
    assert moment(torch.optim.SGD([weight]), "exp_avg", value) is value
