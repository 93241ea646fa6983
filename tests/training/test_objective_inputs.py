"""What objectives ask for is looked up before training, refused by name, and computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from domainclip.config import loading
from domainclip.errors import DataError, DomainclipError, RecipeError
from domainclip.models import loading as models_loading
from domainclip.objectives.base import Objective, ObjectiveInputs, Views
from domainclip.pipelines.inputs import load_inputs
from domainclip.pipelines.training_setup import make_setup
from domainclip.training import teachers as training_teachers
from domainclip.training.precompute import cache_features
from domainclip.training.setup import TrainingSetup, to_step_batch
from tests.support.tiny_models import tiny_clip


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))


@dataclass(frozen=True, kw_only=True)
class Pupil(Objective):
    citation: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset({"teachers", "base_image", "labels"})
    teachers: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> ObjectiveInputs:
        return ObjectiveInputs(teachers=tuple(self.teachers))

    def __call__(self, views: Views) -> Tensor:
        return (views.image[views.local_slice] - views.base_image[views.local_slice]).square().sum(-1).mean()  # type: ignore[index]


@dataclass(frozen=True, kw_only=True)
class Graded(Objective):
    citation: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset({"pair_value"})
    column: str = "price"

    @property
    def inputs(self) -> ObjectiveInputs:
        return ObjectiveInputs(value_column=self.column)

    def __call__(self, views: Views) -> Tensor:
        return views.image.sum() * 0


def _job(recipe_file: Path, objectives: dict[str, Any], *changes: str) -> TrainingSetup:
    options = (
        "{"
        + ", ".join(
            f"'tests.training.test_objective_inputs:{name}': {spec}" for name, spec in objectives.items()
        )
        + "}"
    )
    ready = load_inputs(loading.load_recipe(str(recipe_file), [f"objectives={options}", *changes]), "train")
    return make_setup(ready)


@pytest.fixture(autouse=True)
def _tests_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


def test_teachers_and_the_base_say_what_they_say(recipe_file: Path, tmp_path: Path, base: Path) -> None:
    """What a step brings of a teacher is what that model says of the very pictures and captions."""
    other = tiny_clip(tmp_path / "teacher", seed=9, log_scale=1.5)
    setup = training_teachers.precompute_teachers(_job(recipe_file, {"Pupil": f"{{teachers: ['{other}']}}"}))
    assert [note.split(":")[0] for note in setup.notes] == ["cached", "cached", "cached"]
    stage = cache_features(setup.stage_inputs())
    rows = [setup.pairs[0, i] for i in (3, 11)]
    from domainclip.data.batching.batch import collate

    batch = to_step_batch(stage, collate(rows), 0, torch.device("cpu"))
    (teacher,) = batch.teachers["tests.training.test_objective_inputs:Pupil"]
    model = models_loading.load_model(other).eval()
    with torch.no_grad():
        pixels = {"pixels": torch.stack([torch.from_numpy(row.image["pixels"]) for row in rows])}  # type: ignore[index]
        assert torch.allclose(teacher.image, model.encode_image(pixels), atol=1e-6)
        assert torch.allclose(teacher.text, model.encode_text(model.text_tokenizer(batch.texts)), atol=1e-6)
        own = models_loading.load_model(base).eval().encode_image(pixels)
    assert teacher.scale == pytest.approx(float(np.exp(1.5)), rel=1e-6)
    assert batch.base_image is not None
    assert torch.allclose(batch.base_image, own, atol=1e-6)
    assert not torch.allclose(teacher.image, own, atol=1e-2)  # another model, not the base twice
    assert batch.extras.labels is not None
    assert batch.extras.labels.sum(1).tolist() == [1, 1]
    again = training_teachers.precompute_teachers(setup)
    assert {note.split(":")[0] for note in again.notes[-2:]} == {"reused"}


def _refused(make: Callable[[], object]) -> tuple[type, str]:
    with pytest.raises(DomainclipError) as caught:
        make()
    return type(caught.value), str(caught.value)


def test_a_column_without_numbers_is_refused(recipe_file: Path) -> None:
    assert _refused(lambda: _job(recipe_file, {"Graded": "{}"})) == (
        DataError,
        'objectives.tests.training.test_objective_inputs:Graded.column: no training item of corpus unnamed has a number under "price" '
        "in its meta: name a column that has, and list it under columns.meta of the card",
    )


def test_labels_that_are_not_there_are_refused(recipe_file: Path) -> None:
    options = ["objectives={'tests.training.test_objective_inputs:Pupil': {}}"]
    ready = load_inputs(loading.load_recipe(str(recipe_file), options), "train")
    train = ready.corpus.splits["train"]
    unlabelled = train.map(lambda _: {"labels": []}, features=train.features)
    ready = replace(ready, corpus=ready.corpus.with_train_items(unlabelled))
    assert _refused(lambda: make_setup(ready)) == (
        DataError,
        "objectives: one of them needs labels, and no training item of corpus unnamed has any: name "
        "columns.labels in the card",
    )


def test_no_room_for_a_teacher_is_said(recipe_file: Path, tmp_path: Path) -> None:
    other = tiny_clip(tmp_path / "teacher", seed=9)
    setup = _job(recipe_file, {"Pupil": f"{{teachers: ['{other}']}}"}, "train.feature_cache_gb=0.0000001")
    assert _refused(lambda: training_teachers.precompute_teachers(setup)) == (
        RecipeError,
        "objectives.tests.training.test_objective_inputs:Pupil.teachers: not cached: embeddings of 40 images, 0.00 GB: more than "
        "train.feature_cache_gb allows: raise train.feature_cache_gb, or make room",
    )


def test_a_teacher_that_is_not_there_is_named(recipe_file: Path, tmp_path: Path) -> None:
    kind, said = _refused(lambda: _job(recipe_file, {"Pupil": f"{{teachers: ['{tmp_path / 'none'}']}}"}))
    assert issubclass(kind, DomainclipError)
    assert str(tmp_path / "none") in said
    assert "\n" not in said
