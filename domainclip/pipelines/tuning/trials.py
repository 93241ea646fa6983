"""One trial of `tune`: a run of the recipe with some overrides, measured on the validation split."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from domainclip.components import build_components
from domainclip.config import loading
from domainclip.config.recipe import Recipe
from domainclip.errors import RecipeError, did_you_mean
from domainclip.evaluation.base import RETENTION
from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.pipelines.ablation import runs
from domainclip.pipelines.ablation.plan import Run
from domainclip.pipelines.ablation.runs import Ended
from domainclip.pipelines.ablation.table import public_error
from domainclip.pipelines.tuning.costs import Work
from domainclip.report import results_file
from domainclip.report.results_file import Result
from domainclip.report.tuning_results import TrialResult, Tuning

_SPLIT = "validation"
# No test item is read, and intervals only describe: fewer resamples do.
_MEASURED = (f"evaluate.split={_SPLIT}", "evaluate.bootstrap_samples=500")


@dataclass(frozen=True)
class Stage:
    """The end of one stage of a trial."""

    result: TrialResult
    seconds: float  # that it took now; 0 for a run that was complete
    whole: float = 0.0  # that it took when it was run, evaluation included


@dataclass(frozen=True)
class TrialRunner:
    """Runs trials in a folder; equal overrides have the same run, so that none is trained twice."""

    recipe: str  # name or file
    shared: Sequence[str]  # overrides of all trials
    folder: Path
    train_items: int = 0  # of the corpus
    processes: int | None = None  # of each run

    def load(self, lines: Sequence[str], *more: str) -> Recipe:
        """The recipe with these overrides.

        Raises: RecipeError.
        """
        recipe = loading.load_recipe(self.recipe, [*self.shared, *lines, *more])
        build_components(recipe).check_reach(next(iter(recipe.strategy)))
        return recipe

    def fits(self, line: str) -> bool:
        """Whether the recipe takes this override: its objective reaches a weight that learns."""
        try:
            self.load([line])
        except RecipeError:
            return False
        return True

    def work_of(self, lines: Sequence[str]) -> Work:
        """What decides the time of a trial.

        Raises: RecipeError.
        """
        recipe = self.load(lines)
        (strategy,) = recipe.strategy
        return Work(strategy, recipe.train.epochs_of(self.train_items))

    def prepare(self, lines: Sequence[str], epochs_share: float = 1.0) -> Run:
        """The run of a trial, or its first stage with a share of the epochs."""
        recipe = self.load(lines)
        epochs = f"train.epochs={recipe.train.epochs_of(self.train_items) * epochs_share:g}"
        digest = hashlib.sha256("\n".join([*lines, epochs]).encode()).hexdigest()[:8]
        name = f"{recipe.name}-{digest}"
        run = self.load(lines, *_MEASURED, epochs, f"name={name}")
        return Run(name, run.train.seed, run, self.folder / name)

    def finish(self, run: Run) -> tuple[Ended, float]:
        """Train a run that is not complete; how it ended, and the seconds that it took now.

        Raises: RecipeError for a folder of another run; Interrupted after a signal.
        """
        if runs.is_complete(run):
            return Ended(run), 0.0
        begun = time.monotonic()
        (ended,) = runs.run_all([run], jobs=1, processes=self.processes, quiet=True, say=lambda _: None)
        seconds = time.monotonic() - begun
        if not ended.error:  # for the costs of later trials, also when this command is repeated
            with suppress(OSError):  # a full disk stops the next run with a line of its own
                self._whole(run).write_text(f"{seconds:.1f}\n", encoding="ascii")
        return ended, seconds

    def whole_seconds(self, run: Run) -> float:
        """What a complete run took, evaluation included; 0 where that is unknown."""
        try:
            return float(self._whole(run).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0.0

    @staticmethod
    def _whole(run: Run) -> Path:
        return run.folder.with_name(f"{run.folder.name}.seconds")

    def run_stage(self, metric: str, number: int, lines: Sequence[str], epochs_share: float) -> Stage:
        """One stage of a trial, by the metric that decides."""
        try:
            run = self.prepare(lines, epochs_share)
            ended, seconds = self.finish(run)
        except RecipeError as error:  # overrides that do not fit this recipe
            return Stage(TrialResult(number, lines, "failed", error=str(error)), 0.0)
        return Stage(read_trial(number, lines, ended, metric), seconds, self.whole_seconds(run))


def metric_that_decides(run: Path, named: str) -> str:
    """The metric as probe/set/metric: the named one, or the first headline metric on the validation split.

    Raises: RecipeError where there is none.
    """
    measured = {_name(row): row for row in results_file.load(run / "results.json").results if _is_judged(row)}
    if named in measured:
        return named
    if named:
        raise RecipeError(f"--metric: {named}: not measured on the split: {did_you_mean(named, measured)}")
    first = next((name for name, row in measured.items() if row.headline), None)
    if first is None:
        raise RecipeError(
            "probes: none has a headline metric on the validation split: add zero_shot or retrieval"
        )
    return first


def _is_judged(row: Result) -> bool:
    both = row.adapted is not None and row.adapted.value is not None and row.base.value is not None
    return row.dataset == _SPLIT and both and not row.not_judged


def _name(row: Result) -> str:
    return f"{row.probe}/{row.dataset}/{row.metric}"


def read_trial(number: int, lines: Sequence[str], ended: Ended, metric: str) -> TrialResult:
    """The result of a run that has ended, by the metric that decides."""
    if ended.error:
        return TrialResult(number, lines, "failed", error=public_error(ended))
    results = results_file.load(ended.run.folder / "results.json")
    row = next((row for row in results.results if _name(row) == metric), None)
    if row is None or row.adapted is None or row.adapted.value is None or not results.valid:
        why = results.warnings[0] if results.warnings and not results.valid else f"{metric} is not measured"
        return TrialResult(number, lines, "failed", error=why)
    same = (r for r in results.results if (r.probe, r.metric) == (row.probe, row.metric))
    general = next((r for r in same if r.dataset == RETENTION), None)
    interpolation = dict((results.run.get("facts") or {}).get("interpolation") or {})
    return TrialResult(
        number=number,
        overrides=lines,
        state="complete",
        value=row.adapted.value,
        gain=_upward(row),
        retention=None if general is None else _upward(general),
        selecting=_change_of_selecting_half(interpolation, row),
        alpha=interpolation.get("alpha"),
        seconds=float(results.run.get("seconds") or 0.0),
    )


def _change_of_selecting_half(interpolation: Mapping[str, Any], row: Result) -> float | None:
    """The change of the metric on the half of the retention set that selected α; positive is better."""
    general = interpolation.get("general") or {}
    same = interpolation.get("figure") == f"{row.probe} {row.metric}" and "floor" in interpolation
    if not same or (chosen := general.get(str(interpolation.get("alpha")))) is None:
        return None
    change = float(chosen - general["0.0"])
    return change if row.higher_is_better else -change


def with_base(tuning: Tuning, run: Path, metric: str) -> Tuning:
    """With the metric that decides, and the base as a complete run has measured it."""
    results = results_file.load(run / "results.json")
    row = next(row for row in results.results if _name(row) == metric)
    assert row.base.value is not None
    name = str(results.base.get("name", "the base"))
    return replace(tuning, base=name, metric=metric, base_value=row.base.value, unit=row.unit)


def _upward(row: Result) -> Estimate | None:
    """The change with the sign such that positive is better; without an interval, NaN at its ends."""
    if row.difference is None or row.difference.value is None:
        return None
    nan = float("nan")
    low, high = (nan if end is None else end for end in (row.difference.low, row.difference.high))
    value = row.difference.value
    return Estimate(value, low, high) if row.higher_is_better else Estimate(-value, -high, -low)
