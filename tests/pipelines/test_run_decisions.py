"""Thresholds and temperature of an evaluation lie beside the weights that they hold for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from domainclip.data.cards import Prompts
from domainclip.evaluation import run_classes
from domainclip.evaluation.class_decisions import Decisions, chosen_decisions
from domainclip.evaluation.run_classes import RunClasses
from domainclip.pipelines.run_decisions import record_evaluated_run

CLASSES = {"nodule": Prompts(positive=["nodule"], negative=["no nodule"])}


def evaluation(temperature: object = 2.0, preset: str = "normalise_mean_normalise") -> Any:
    """The base has the threshold 1, the adapted model -0.5; calibration is measured on 40 items."""
    rows = [
        SimpleNamespace(
            probe="calibration",
            dataset="test",
            metric="ece_fitted",
            n=40,
            base=SimpleNamespace(value=0.2),
            adapted=SimpleNamespace(value=0.1),
        )
    ]
    zero_shot = {"preset": preset, "thresholds": {"nodule": 1.0}}
    protocol = [
        entry("zero_shot", zero_shot, {"thresholds": {"nodule": -0.5}}),
        entry("calibration", {"temperature": 3.0}, {"temperature": temperature}),
        entry("zero_shot", {"preset": preset, "thresholds": {"nodule": 9.0}}, {}, dataset="general"),
    ]
    return SimpleNamespace(rows=rows, protocol=protocol)


def entry(probe: str, first: dict[str, Any], other: dict[str, Any], dataset: str = "test") -> dict[str, Any]:
    return {"probe": probe, "dataset": dataset, "details": first, "adapted_details": other}


def test_the_decisions_are_those_of_the_named_model_on_the_named_set() -> None:
    assert chosen_decisions(evaluation(), "test", adapted=True) == Decisions(
        thresholds={"nodule": -0.5},
        temperature=2.0,
        calibration_error=0.1,
        calibration_split="test",
        calibration_items=40,
    )
    of_base = chosen_decisions(evaluation(), "test", adapted=False)
    assert of_base is not None
    assert (of_base.thresholds, of_base.temperature, of_base.calibration_error) == ({"nodule": 1.0}, 3.0, 0.2)


def test_what_no_probe_chose_is_not_stated() -> None:
    unfitted = chosen_decisions(evaluation("not fitted: no validation split"), "test", adapted=True)
    assert unfitted == Decisions(thresholds={"nodule": -0.5})
    # Thresholds of a published protocol belong to its prompts, which are not those of the run.
    assert chosen_decisions(evaluation("none", "cxr.chexzero"), "test", adapted=True) is None


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "recipe.yaml").write_text("base: b\n")
    run_classes.save(tmp_path, RunClasses(corpus="this", classes=CLASSES, multi_label=True))
    return tmp_path


def protocol(fingerprint: str = "this", split: str = "test", classes: Any = CLASSES) -> Any:
    measured = SimpleNamespace(name="test", fingerprint=fingerprint, split=split, classes=classes)
    return SimpleNamespace(reported=[measured])


def test_an_evaluation_adds_what_it_chose(run: Path) -> None:
    earlier = Decisions(thresholds={"nodule": 0.25}, temperature=5.0)
    known = run_classes.load(str(run))
    assert known is not None
    run_classes.save(run / "model", known.model_copy(update={"decisions": earlier}))
    record_evaluated_run(run, ["base", str(run)], protocol(), [evaluation("none")])
    stored = run_classes.beside_weights(run / "model")
    assert stored is not None
    assert stored.multi_label
    assert stored.decisions == Decisions(thresholds={"nodule": -0.5}, temperature=5.0)


@pytest.mark.parametrize(
    ("names", "measured"),
    [
        (["base", "elsewhere"], protocol()),
        (["base", "{run}"], protocol(fingerprint="another")),
        (["base", "{run}"], protocol(split="validation")),
        (["base", "{run}"], protocol(classes={})),
        (["base", "a", "{run}"], protocol()),
    ],
)
def test_another_corpus_split_model_or_other_classes_record_nothing(
    run: Path, names: list[str], measured: Any
) -> None:
    record_evaluated_run(run, [name.format(run=run) for name in names], measured, [evaluation()])
    assert not (run / "model" / run_classes.FILE).exists()
