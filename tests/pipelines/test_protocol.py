"""The way from the base to the adapted weights: measured on the way, chosen with and without a floor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from domainclip.config import loading
from domainclip.config.recipe import WeightInterpolation
from domainclip.errors import DataError, RecipeError
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.probes.zero_shot import ZeroShot
from domainclip.evaluation.protocol import Protocol
from domainclip.models import loading as models_loading
from domainclip.pipelines import finetune, protocol
from domainclip.pipelines.inputs import load_inputs
from domainclip.pipelines.protocol import evaluation_sets
from domainclip.report.results_file import load
from domainclip.training import alpha_choice, weight_interpolation
from domainclip.training.alpha_choice import AlphaScore
from domainclip.training.run_context import RunOptions
from domainclip.training.validation import make_validation_set, validation_warnings
from tests import conftest
from tests.evaluation.example_sets import CLASSES, animals
from tests.evaluation.probes.array_encoder import evaluation_set
from tests.report.made_results import row


@pytest.fixture
def with_general(recipe_file: Path, tmp_path: Path) -> Path:
    file = conftest.with_general(recipe_file, tmp_path / "general", 48)
    file.write_text(file.read_text() + "probes: [zero_shot]\n")
    return file


@pytest.mark.parametrize("strategy", ["full", "{lora: {rank: 2}}"])
def test_every_alpha_is_measured_on_both_sets(
    with_general: Path, tmp_path: Path, base: Path, strategy: str
) -> None:
    said = [
        f"strategy={strategy}",
        "train.learning_rate=2e-3",
        "weight_interpolation={alphas: [0.5, 1.0]}",
        "train.epochs=2",
    ]
    finetune.finetune(
        loading.load_recipe(str(with_general), said), RunOptions(folder=tmp_path / "run", quiet=True)
    )
    file = load(tmp_path / "run" / "results.json")
    facts = file.run["facts"]["interpolation"]
    assert set(facts["general"]) == set(facts["validation"]) == {"0.0", "0.5", "1.0"}
    assert facts["general_is"] == "not used for choosing"
    assert facts["figure"] == "zero_shot accuracy"
    assert "floor" not in facts
    (general,) = (one for one in file.results if (one.dataset, one.metric) == ("general", "accuracy"))
    # α = 0 is the base itself, and what was said of the chosen α is what the written model reaches.
    assert facts["general"]["0.0"] == general.base.value
    assert general.adapted is not None
    assert facts["general"][str(facts["alpha"])] == pytest.approx(general.adapted.value)
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count('class="path chosen"') == 1
    assert "Thin line: zero-shot accuracy of the weights interpolated from the base (α = 0)" in page
    assert '<a href="https://arxiv.org/abs/2109.01903">arXiv:2109.01903</a>' in page
    assert (
        "weight interpolation: [arXiv:2109.01903](https://arxiv.org/abs/2109.01903)"
        in (tmp_path / "run" / "README.md").read_text()
    )


def test_a_floor_reports_the_half_that_it_does_not_choose_on(with_general: Path, tmp_path: Path) -> None:
    said = ["train.learning_rate=2e-3", "weight_interpolation={alphas: [0.5, 1.0], max_retention_drop: 0.0}"]
    asked = loading.load_recipe(str(with_general), said)
    finetune.finetune(asked, RunOptions(folder=tmp_path / "run", quiet=True))
    file = load(tmp_path / "run" / "results.json")
    facts = file.run["facts"]["interpolation"]
    assert facts["general_is"] == "half of the set, which is not reported"
    assert facts["floor"] == 0.0
    kept = [alpha for alpha, value in facts["general"].items() if value >= facts["general"]["0.0"]]
    assert facts["validation"][str(facts["alpha"])] == max(facts["validation"][alpha] for alpha in kept)
    # Over all items, where a macro mean leaves out the classes that are rare in this half.
    (general,) = (one for one in file.results if (one.dataset, one.metric) == ("general", "accuracy"))
    whole = evaluation_set_of(with_general)
    half = protocol.reported_sets([whole], asked.weight_interpolation)[0]
    assert general.items == len(half.items) < 48
    assert "half of the set" in (tmp_path / "run" / "report.md").read_text()
    # Both halves together are the whole, no group in both, and order does not matter.
    rest = protocol._half(whole, reported=False)
    assert set(half.items["group"]) | set(rest.items["group"]) == set(whole.items["group"])
    assert not set(half.items["group"]) & set(rest.items["group"])
    assert len(half.items) + len(rest.items) == 48
    shuffled = EvaluationSet("general", whole.items.shuffle(seed=1), whole.card, whole.classes)
    assert set(protocol.reported_sets([shuffled], asked.weight_interpolation)[0].items["id"]) == set(
        half.items["id"]
    )


def evaluation_set_of(file: Path) -> EvaluationSet:
    asked = loading.load_recipe(str(file))
    ready = load_inputs(asked, "evaluate")
    return evaluation_sets(asked, ready.corpus, ready.retention)[1]


def test_no_alpha_within_the_floor_leaves_the_base(
    with_general: Path, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = weight_interpolation._score

    def costly(alpha, *measured):  # type: ignore[no-untyped-def]
        one = plain(alpha, *measured)
        return AlphaScore(alpha, one.score, 0.5 - alpha, drop=alpha)

    monkeypatch.setattr(weight_interpolation, "_score", costly)
    asked = loading.load_recipe(
        str(with_general), ["weight_interpolation={alphas: [0.5], max_retention_drop: 0.1}", "train.epochs=1"]
    )
    finetune.finetune(asked, RunOptions(folder=tmp_path / "run", quiet=True))
    file = load(tmp_path / "run" / "results.json")
    assert file.run["facts"]["interpolation"]["alpha"] == 0.0
    assert alpha_choice._UNCHANGED in file.warnings
    assert any("cannot be shown with" in warning for warning in file.warnings)
    written, before = (
        models_loading.load_model(tmp_path / "run" / "model").weights(),
        models_loading.load_model(base).weights(),
    )
    assert all(torch.equal(weight, before[name]) for name, weight in written.items())
    changes = [(one.base.value, one.difference.value) for one in file.results if one.difference]
    # Undefined where the base is, such as the precision of a class that it never answers: which classes that are
    # depends on the half, and so on the secret of the machine.
    assert {change for value, change in changes if value is not None} == {0.0}
    assert {change for value, change in changes if value is None} <= {None}


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (["probes=[modality_gap]", "weight_interpolation={}"],
         "weight_interpolation: no probe has a primary metric on the validation split that can select α: add zero_shot or retrieval "
         "to probes, or leave weight_interpolation out"),
        (["probes=[knn]", "weight_interpolation={max_retention_drop: 0.1}"],
         "weight_interpolation.max_retention_drop: knn accuracy cannot be measured on the retention set: leave it out"),
    ],
)  # fmt: skip
def test_what_cannot_choose_fails_before_training(
    with_general: Path, tmp_path: Path, said: list[str], line: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        finetune.finetune(
            loading.load_recipe(str(with_general), said), RunOptions(folder=tmp_path / "run", quiet=True)
        )
    assert str(caught.value) == line
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_probe_that_fits_may_choose(with_general: Path, tmp_path: Path) -> None:
    """It fits on the training split, and never on the split that is chosen on."""
    said = ["probes=[knn]", "weight_interpolation={alphas: [0.5]}", "train.epochs=1"]
    finetune.finetune(
        loading.load_recipe(str(with_general), said), RunOptions(folder=tmp_path / "run", quiet=True)
    )
    facts = load(tmp_path / "run" / "results.json").run["facts"]["interpolation"]
    assert facts["figure"].startswith("knn ")
    asked = loading.load_recipe(str(with_general), said)
    validation = protocol.make_protocol(load_inputs(asked, "evaluate")).selection[0]
    assert validation.train is not None
    assert validation.validation is None


def test_what_steers_is_the_half_that_chooses(with_general: Path, tmp_path: Path) -> None:
    """With a floor, no item of the reported half has a say: not in the rate, nor in the end."""
    steers = ["train.validate_every=1", "train.on_retention_drop=lower_rate", "train.epochs=1"]
    looked = {}
    for floor in ("null", "0.1"):
        asked = loading.load_recipe(
            str(with_general), [*steers, f"weight_interpolation={{max_retention_drop: {floor}}}"]
        )
        ready = load_inputs(asked, "train")
        whole = protocol.make_protocol(ready)
        seen = make_validation_set(
            asked, ready.corpus, whole.selection, ready.objectives, whole.probes, ready.base
        )
        assert seen is not None
        assert seen.retention is not None
        looked[floor] = set(seen.retention.items["group"])
        reported = set(whole.reported[1].items["group"])
        assert looked[floor].isdisjoint(reported) == (floor == "0.1")
        doubt = "train.on_retention_drop: the retention set influences the training, so its metrics are optimistic"
        warnings = validation_warnings(asked.train, asked.evaluate.split, halved=floor == "0.1")
        assert (doubt in warnings) == (floor == "null")
    assert looked["0.1"] < looked["null"]


def test_heads_that_are_not_saved_stay_as_trained(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_interpolation, "_measure", lambda *_, **__: [])
    monkeypatch.setattr(weight_interpolation, "_metric_of", lambda *_: None)
    monkeypatch.setattr(weight_interpolation, "_score", lambda alpha, *_: AlphaScore(alpha, alpha))
    model = models_loading.load_model(base)
    model.added_modules["objectives"] = torch.nn.Linear(2, 2)
    start = {name: weight.detach().clone() for name, weight in model.weights().items()}
    assert "extra/objectives.weight" in start
    with torch.no_grad():
        for weight in model.weights().values():
            weight.add_(1.0)
    data = evaluation_set(animals(8), CLASSES)
    plain = Protocol([data], {"zero_shot": ZeroShot()}, selection=[data])
    trained: Any = SimpleNamespace(model=model, start_weights=start)
    metric = row(dataset="validation", adapted=None)
    asked = replace(plain, interpolation=WeightInterpolation(alphas=[0.25]))
    adapted = weight_interpolation.interpolate_weights(trained, asked, metric)
    assert adapted.interpolation is not None
    assert adapted.interpolation.alpha == 0.25
    for name, weight in model.weights().items():
        moved = 1.0 if name.startswith("extra/objectives.") else 0.25
        assert torch.allclose(weight, start[name] + moved, atol=1e-6), name
    assert weight_interpolation.interpolate_weights(trained, plain, None).interpolation is None


def test_a_floor_needs_a_general_set_of_some_size(tmp_path: Path) -> None:
    asked = loading.load_recipe("quickstart", ["weight_interpolation={max_retention_drop: 0.01}"])
    data = evaluation_set(animals(8), CLASSES)
    with pytest.raises(RecipeError) as caught:
        protocol.reported_sets([data], asked.weight_interpolation)
    assert str(caught.value) == (
        "weight_interpolation.max_retention_drop: no retention set is measured: name one with retention.path=FOLDER retention.card=CARD, "
        "or leave it out"
    )
    alone = replace(data, name="general", items=data.items.select([0]))
    with pytest.raises(DataError) as small:
        protocol.reported_sets([data, alone], asked.weight_interpolation)
    assert str(small.value) == (
        "weight_interpolation.max_retention_drop: the retention set has too few groups to select on one half and report the other: 1 items; "
        "leave it out"
    )
    assert protocol.reported_sets([data, alone], None) == [data, alone]


@pytest.mark.parametrize("floor", ["-0.1", "1", "yes"])
def test_a_floor_is_a_share(floor: str) -> None:
    with pytest.raises(RecipeError, match=r"^quickstart.yaml: weight_interpolation.max_retention_drop: "):
        loading.load_recipe("quickstart", [f"weight_interpolation={{max_retention_drop: {floor}}}"])


def test_a_floor_is_part_of_a_run_only_where_its_half_steers(with_general: Path) -> None:
    def identity(*said: str) -> dict[str, object]:
        return loading.load_recipe(str(with_general), ["train.validate_every=2", *said]).identity()

    floor, steers = "weight_interpolation={max_retention_drop: 0.1}", "train.on_retention_drop=stop"
    assert identity(floor) == identity()
    assert identity(floor, steers) != identity(steers) == identity("weight_interpolation={}", steers)
    assert identity("weight_interpolation={max_retention_drop: 0.2}", steers) == identity(floor, steers)
