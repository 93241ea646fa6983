"""Trackers receive what metrics.jsonl holds, and no word of the corpus; TensorBoard also after a resume."""

from __future__ import annotations

import json
import shutil
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, ClassVar

import pytest
from accelerate import tracking
from accelerate.tracking import GeneralTracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from domainclip.config import loading
from domainclip.config.training import TrainConfig
from domainclip.errors import RecipeError
from domainclip.pipelines import finetune
from domainclip.training.monitoring import trackers
from domainclip.training.run_context import RunOptions

TRACKED = [
    "train.trackers=tensorboard",
    "train.validate_every=4",
    "train.save_every=2",
    "train.keep_checkpoints=9",
]


def _finetune(recipe: Path, folder: Path, *, resume: bool = False) -> None:
    finetune.finetune(
        loading.load_recipe(str(recipe), TRACKED), RunOptions(folder=folder, resume=resume, quiet=True)
    )


def _shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder / trackers.TENSORBOARD)).Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def _said(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_same_numbers_also_after_a_resume(recipe_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _finetune(recipe_file, folder)
    for step in (6, 8):  # steps 5 to 8 are done again
        shutil.rmtree(folder / "checkpoints" / f"step-{step:06d}")
    _finetune(recipe_file, folder, resume=True)
    shown, said = _shown(folder), _said(folder)
    for tag, wanted in (("loss", "loss"), ("scale", "scale"), ("grad_norm", "grad_norm")):
        expected = [(line["step"], line[wanted]) for line in said if wanted in line]
        assert [step for step, _ in shown[tag]] == list(range(1, 9))
        assert shown[tag] == [(step, pytest.approx(value, rel=1e-6)) for step, value in expected]
    looks = [(line["step"], line["validation"]["loss"]) for line in said if "validation" in line]  # type: ignore[index]
    assert shown["validation/loss"] == [(step, pytest.approx(value, rel=1e-6)) for step, value in looks]
    assert "terms/contrastive" in shown
    written = b"".join(file.read_bytes() for file in (folder / trackers.TENSORBOARD).iterdir())
    assert b"square" not in written  # every caption has the word


class MemoryTracker(GeneralTracker):
    """Accelerate's interface, with the calls in memory."""

    name = "memory"
    requires_logging_directory = False
    made: ClassVar[list[MemoryTracker]] = []

    def __init__(self, project: str, **options: Any) -> None:
        super().__init__()
        self.project, self.options, self.started, self.finished = project, options, False, False
        self.settings: dict[str, Any] = {}
        self.logged: list[tuple[int | None, dict[str, float]]] = []
        MemoryTracker.made.append(self)

    @property
    def tracker(self) -> MemoryTracker:
        return self

    def start(self) -> None:
        self.started = True

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings = values

    def log(self, values: dict[str, float], step: int | None = None, **more: Any) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


class BrokenTracker(MemoryTracker):
    """One whose server goes away."""

    def log(self, values: dict[str, float], step: int | None = None, **more: Any) -> None:
        raise ConnectionError("https://jane:secret@tracker.hospital.example/patients")


class RefusedTracker(MemoryTracker):
    """One that asks for a login."""

    def start(self) -> None:
        raise PermissionError("jane")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> list[MemoryTracker]:
    monkeypatch.setattr(MemoryTracker, "made", [])
    for name in ("wandb", "mlflow", "trackio"):
        monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, name, MemoryTracker)
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setattr(sys.modules[name], "__spec__", ModuleSpec(name, None))
    return MemoryTracker.made


def test_a_run_sends_numbers_and_the_recipe_without_paths(
    recipe_file: Path, tmp_path: Path, memory: list[MemoryTracker]
) -> None:
    folder = tmp_path / "jane_doe"
    changes = ["train.trackers=[wandb, mlflow]", "train.epochs=0.2", "train.validate_every=1"]
    finetune.finetune(loading.load_recipe(str(recipe_file), changes), RunOptions(folder=folder, quiet=True))
    assert [tracker.project for tracker in memory] == ["domainclip", "domainclip"]
    assert all(tracker.started and tracker.finished for tracker in memory)
    lines = [{k: v for k, v in line.items() if k != "step"} for line in _said(folder)]
    expected = [
        (line["step"], dict(trackers.numbers(rest))) for line, rest in zip(_said(folder), lines, strict=True)
    ]
    for tracker in memory:
        assert tracker.logged == expected
        assert tracker.settings["train.epochs"] == 0.2
        assert tracker.settings["base.path"] == "(local)"
        sent = json.dumps([tracker.settings, tracker.logged, tracker.project])
        for private in ("jane_doe", str(tmp_path), "red square", "squares.csv", "images/"):
            assert private not in sent
    assert memory[0].options["settings"]["x_disable_meta"]  # the command, the folder, the host
    assert memory[1].options["tags"]["mlflow.user"] == ""


def _trackers(folder: Path, *names: Any) -> trackers.Trackers:
    return trackers.Trackers(TrainConfig(trackers=list(names)), folder, "name", {"train": {"epochs": 3}})


def test_a_tracker_that_fails_is_left_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    memory: list[MemoryTracker],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "mlflow", BrokenTracker)
    several = _trackers(tmp_path, "mlflow", "trackio")
    several.begin(0)
    several.begin(5)  # of the second stage
    for step in (1, 2):
        several.write({"step": step, "loss": 0.5})
    several.finish()
    assert [(type(one).__name__, one.logged, one.finished) for one in memory] == [
        ("BrokenTracker", [], False),
        ("MemoryTracker", [(1, {"loss": 0.5}), (2, {"loss": 0.5})], True),
    ]
    assert [record.message for record in caplog.records] == [
        "warning: train.trackers: mlflow failed (ConnectionError) and has no numbers from step 1 on; "
        "metrics.jsonl has all of them"
    ]


def test_a_tracker_that_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: list[MemoryTracker]
) -> None:
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", RefusedTracker)
    with pytest.raises(RecipeError, match=r"train.trackers: wandb cannot start \(PermissionError\): log in"):
        _trackers(tmp_path, "wandb").begin(0)


def test_words_and_flags_by_path() -> None:
    record = {"step": 3, "loss": 0.5, "of": "zero_shot", "terms": {"a": 1.0, "b": {"c": 2}}}
    assert dict(trackers.numbers(record)) == {"step": 3, "loss": 0.5, "terms/a": 1.0, "terms/b/c": 2}


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_missing_library_is_named_before_anything_is_loaded(
    name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda module: None)
    with pytest.raises(RecipeError) as caught:
        trackers.require_trackers(TrainConfig(trackers=[name]))
    assert str(caught.value) == (
        f"train.trackers: {name} is not installed: pip install 'domainclip[{name}]', or leave it out: "
        "metrics.jsonl holds the same numbers"
    )
    trackers.require_trackers(TrainConfig())
