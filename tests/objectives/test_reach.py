"""Which towers an objective teaches: as it declares, as autograd finds on a tiny model, and what a run makes of it."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from domainclip import components, registry
from domainclip.config import loading
from domainclip.errors import RecipeError
from domainclip.models import dual_encoder
from domainclip.models.layers import Modality
from domainclip.models.loading import load_model
from domainclip.objectives.base import Objective, Sizes
from domainclip.pipelines.ablation import plan
from domainclip.pipelines.inputs import load_inputs
from domainclip.training import step
from domainclip.training.memory import Memory
from domainclip.training.objective_inputs import frozen_towers
from tests.objectives.filled_views import _nudged, _some_rows, filled_for
from tests.objectives.test_composition import NAMES, options
from tests.objectives.test_composition_steps import TEXTS, _batch
from tests.support.tiny_models import tiny_clip

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, options(name)) for name in NAMES),
    ("anchor", {"space": "logit"}),
    ("anchor", {"space": "similarity"}),
    ("matryoshka", {"widths": [4], "objective": {"tags": {}}}),
    ("paraphrases", {"share": 0.0}),
    ("paraphrases", {"share": 1.0}),
    ("prototypes", {"between": "views"}),
    ("prototypes", {"between": "sentences"}),
    ("report_sentences", {"patches": True}),
    ("tags", {"source": "labels"}),
    ("token_alignment", {"mode": "filip"}),
]
SIDES = {
    "image": ("image", "anchor_image", "image_2", "image_tokens", "mixed_image", "masked_tokens"),
    "text": ("text", "anchor_text", "text_tokens", "extra_text"),
}
STRATEGIES: list[tuple[str, frozenset[Modality]]] = [
    ("full", frozenset()),
    ("locked_image", frozenset({"image"})),
    ("locked_text", frozenset({"text"})),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dual_encoder.DualEncoder:
    return load_model(tiny_clip(tmp_path_factory.mktemp("base") / "clip")).train()


def _named(case: tuple[str, dict[str, Any]]) -> str:
    return "-".join(
        [case[0], *(str(value) for value in case[1].values() if not isinstance(value, (dict, list)))]
    )


@pytest.mark.parametrize("case", VARIANTS, ids=_named)
def test_the_embeddings_that_have_a_gradient_are_of_the_towers_that_it_declares(
    case: tuple[str, dict[str, Any]],
) -> None:
    """Under each strategy, whose frozen tower gives embeddings without a graph; the refusal follows."""
    name, own_options = case
    objective = registry.build("objectives", name, own_options, f"objectives.{name}")
    terms = components.WeightedObjectives({name: (1.0, objective)})
    for strategy, frozen in STRATEGIES:
        reached = _reached_embeddings(objective, frozen)
        assert reached == objective.teaches - frozen - {"own"}, strategy
        if reached or "own" in objective.teaches:
            assert bool(terms.check_reach(strategy, frozen)) == (not reached)
        else:
            with pytest.raises(
                RecipeError, match=rf"^objectives\.{name}: changes the (image|text) tower alone"
            ):
                terms.check_reach(strategy, frozen)


def _reached_embeddings(objective: Objective, frozen: Set[Modality]) -> set[str]:
    views = filled_for(objective)
    held = {
        name: rows.detach()
        for side in frozen
        for name in SIDES[side]
        if (rows := getattr(views, name)) is not None
    }
    views = replace(views, **held)
    loss = objective(views)
    if not loss.requires_grad:
        return set()
    given = {
        name: rows
        for name in (*SIDES["image"], *SIDES["text"])
        if (rows := getattr(views, name)) is not None and rows.requires_grad
    }
    found = torch.autograd.grad(loss, list(given.values()), allow_unused=True)
    names = {
        name
        for name, grad in zip(given, found, strict=True)
        if grad is not None and bool(grad.abs().max() > 0)
    }
    return {side for side, of_side in SIDES.items() if names & set(of_side)}


@pytest.mark.parametrize("name", NAMES)
def test_the_towers_that_have_a_gradient_in_a_real_step(model: dual_encoder.DualEncoder, name: str) -> None:
    objective = registry.build("objectives", name, options(name), f"objectives.{name}")
    registry.build("strategies", "full", {}, "strategy.full").learning_rates(model)
    terms = components.WeightedObjectives({name: (1.0, objective)})
    ids = model.text_tokenizer.word_ids(TEXTS)
    vocabulary = ids[ids >= 0].unique().numpy()
    sizes = Sizes(
        model.width, model.width, 3, 3, _some_rows(model.width), vocabulary, model.max_tokens, sources=2
    )
    if own := objective.initial_weights(sizes, 0):
        model.add_objective_weights(name, {key: _nudged(weight).detach() for key, weight in own.items()})
    batch, accelerator = _batch(model, name, objective), Accelerator(cpu=True)
    memory = Memory.initial(terms, sizes, 0, model.weights(), torch.device("cpu"))
    if any(memory.objectives.values()):  # a queue is empty in the first step
        earlier = replace(batch, keys=batch.keys.map(lambda key: key + 1000))
        before = step.compute_gradients(model, model, earlier, terms, None, 0, accelerator, memory)
        memory.update(model.weights(), before.memory)
        model.zero_grad(set_to_none=True)
    step.compute_gradients(model, model, batch, terms, None, 0, accelerator, memory)
    reached = {
        weight.partition("/")[0]
        for weight, tensor in model.weights().items()
        if tensor.grad is not None and float(tensor.grad.abs().max()) > 0
    }
    model.zero_grad(set_to_none=True)
    assert reached & {"image", "text"} == objective.teaches - {"own"}


@pytest.mark.parametrize("name", NAMES)
def test_own_weights_are_taught_where_the_saved_model_has_them(name: str) -> None:
    objective = registry.build("objectives", name, options(name), f"objectives.{name}")
    if name != "matryoshka":  # which passes on what its inner objective has
        saved = type(objective).add_to_model is not Objective.add_to_model
        assert ("own" in objective.teaches) == saved


@pytest.mark.parametrize(
    ("strategy", "settings", "frozen"),
    [
        ("lora", {}, set()),
        ("lora", {"towers": "text"}, {"image"}),
        ("lora", {"towers": "image"}, {"text"}),
        ("full", {"image_lr_factor": 0.0}, {"image"}),
        ("full", {"image_lr_factor": 0.0, "text_lr_factor": 0.0}, {"image", "text"}),
        ("any_resolution", {"image_size": 64, "text_lr_factor": 0.0}, {"text"}),
        ("replace_text_tower", {"encoder": "some"}, {"image"}),
        ("replace_text_tower", {"encoder": "some", "image_lr_factor": 1.0}, set()),
        ("prompt_learning", {}, {"image"}),
    ],
)  # fmt: skip
def test_the_towers_that_a_strategy_freezes_are_known_before_the_base_is_loaded(
    tmp_path: Path, strategy: str, settings: dict[str, Any], frozen: set[str]
) -> None:
    built = registry.build("strategies", strategy, settings, f"strategy.{strategy}")
    assert built.frozen_towers == frozen
    assert frozen_towers(built.learning_rates(load_model(tiny_clip(tmp_path / "clip")))) == frozen


def _recipe(recipe_file: Path, *changes: str) -> Any:
    return loading.load_recipe(str(recipe_file), list(changes))


def test_an_objective_without_effect_is_refused_before_the_base_is_loaded(recipe_file: Path) -> None:
    changes = ["objectives={contrastive: {}, tags: {}}", "base=no/where"]
    with pytest.raises(RecipeError) as caught:
        load_inputs(_recipe(recipe_file, *changes, "strategy=locked_image"), "train")
    assert str(caught.value) == (
        "objectives.tags: changes the image tower alone, of which strategy.locked_image trains no weight: "
        "leave it out, or take another strategy"
    )
    text_alone = "objectives={contrastive: {}, text_self_supervision: {}}"
    with pytest.raises(RecipeError, match=r"^objectives.text_self_supervision: changes the text tower alone"):
        load_inputs(_recipe(recipe_file, text_alone, "strategy=locked_text"), "train")


def test_a_variant_of_a_plan_is_refused_by_its_name(recipe_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.yaml"
    file.write_text(
        f"recipe: {recipe_file}\nvariants:\n  plain: []\n  locked: {{strategy: locked_image}}\n"
        "overrides: ['objectives={contrastive: {}, neighbours: {}}', 'strategy=lora']\nreference: plain\n"
    )
    with pytest.raises(
        RecipeError, match=r'variants "locked": objectives.neighbours: changes the image tower'
    ):
        plan.load(str(file), [], None)


def test_a_saved_decoder_is_a_reason_to_train_and_a_warning(recipe_file: Path) -> None:
    recipe = _recipe(recipe_file, "objectives={contrastive: {}, captioning: {}}", "strategy=locked_image")
    built = components.build_components(recipe)
    assert built.check_reach("locked_image") == [
        "objectives.captioning: only weights of its own learn from it, since strategy.locked_image trains no "
        "weight of the image tower"
    ]


def test_what_is_measured_alone_may_reach_nothing(recipe_file: Path) -> None:
    """With weight 0 an objective is a figure in the log; a strategy may train the scale alone."""
    terms = components.build_objectives({"tags": {"weight": 0.0}, "contrastive": {}})
    assert terms.check_reach("locked_image", {"image"}) == []
    both = components.build_objectives({"tags": {}, "contrastive": {}})
    assert both.check_reach("full", {"image", "text"}) == []
