"""`tune`: what is drawn, how trials end, that a search is replayed, and a whole one on the squares."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from domainclip.cli.app import main
from domainclip.config import loading
from domainclip.errors import DomainclipError, RecipeError
from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.pipelines.ablation.plan import Run
from domainclip.pipelines.tuning.costs import Costs, Work
from domainclip.pipelines.tuning.options import Budget, TuneOptions
from domainclip.pipelines.tuning.search import RunStage, Search
from domainclip.pipelines.tuning.search_space import OneOf, SearchSpace, Span, TuningData, search_space
from domainclip.pipelines.tuning.trials import Stage, TrialRunner
from domainclip.pipelines.tuning.tune import tune
from domainclip.report import tuning_page
from domainclip.report.tuning_results import TrialResult, Tuning
from tests import conftest
from tests.support.runs_in_process import runs_in_process

SPACE = SearchSpace("full", {"full": {"train.learning_rate": Span(1e-6, 1e-2), "train.epochs": OneOf((2,))}})
FIRST = Stage(TrialResult(0, [], "complete", 0.5, Estimate(-1.0, -1.0, -1.0), seconds=200.0), 200.0, 200.0)


def _rate(lines: Sequence[str]) -> float:
    named = [line.split("=")[1] for line in lines if line.startswith("train.learning_rate=")]
    return 0.1 if named in ([], ["null"]) else float(named[0])


def _best_at_a_thousandth(number: int, lines: Sequence[str], share: float) -> Stage:
    """A trial that trains nothing: the nearer the rate to 10⁻³, the better; 10 seconds a stage."""
    gain = share * (1 - abs(math.log10(_rate(lines)) + 3) / 4)
    result = TrialResult(number, lines, "complete", gain, Estimate(gain, gain, gain), seconds=10.0)
    return Stage(result, 10.0, 10.0)


def _work(lines: Sequence[str]) -> Work:
    strategy = next((line.split("=")[1] for line in lines if line.startswith("strategy=")), "full")
    return Work(strategy, 2.0)


def _search(
    trials: int | None,
    seed: int = 0,
    run_stage: RunStage = _best_at_a_thousandth,
    space: SearchSpace = SPACE,
    seconds: float | None = None,
    say: Callable[[str], None] = print,
) -> list[TrialResult]:
    search = Search(space, seed, run_stage, _work, Budget(trials, seconds, 3), None, say)
    assert [*search.trials(FIRST)] == search.results
    return search.results


def test_a_search_is_replayed_and_nears_the_optimum() -> None:
    results = _search(30)
    assert results == _search(30)
    assert results[1].overrides != _search(2, seed=1)[1].overrides
    complete = [trial for trial in results[1:] if trial.state == "complete"]
    stopped = [trial for trial in results if trial.state == "stopped early"]
    assert complete
    assert len(stopped) > 5
    # Those that went on had the better first stages, and the later ones lie nearer the optimum.
    distance = [abs(math.log10(_rate(trial.overrides)) + 3) for trial in results[1:]]
    assert sum(distance[15:]) / len(distance[15:]) < sum(distance[:6]) / 6
    assert min(distance) < 0.1


def test_a_budget_leaves_time_for_what_follows() -> None:
    budget = Budget(None, 100.0, runs_after=3)
    assert budget.has_time(20.0, 20.0, 0.0)  # 20 + 20 + 3 · 20 = 100
    assert not budget.has_time(20.1, 20.0, 0.0)
    assert not budget.has_time(20.0, 19.0, 21.0)  # the chosen one may stay the longer one
    assert budget.has_time(20.0, None, 10.0)  # of unknown length: half of the time is left
    assert not budget.has_time(20.1, None, 10.0)
    assert Budget(3, None).has_time(1e9, 1e9, 1e9)
    assert Budget(3, None).has_trial(2)
    assert not Budget(3, None).has_trial(3)


def test_costs_are_training_by_epochs_and_the_least_of_the_rest() -> None:
    costs = Costs()
    assert costs.predict(Work("lora", 3)) is None
    costs.add(Work("lora", 1), 100.0, 40.0)  # 40 s a pass, and 60 s of which a part is encoded once
    assert costs.predict(Work("lora", 3)) == 180
    costs.add(Work("lora", 2), 110.0, 90.0)  # 45 s a pass, and 20 s
    costs.add(Work("full", 1), 500.0, 500.0)
    assert costs.predict(Work("lora", 1)) == 65
    assert costs.predict(Work("lora", 6)) == 290
    # A strategy that was not tried costs what a cheaper one does; of a cheaper one nothing is known.
    only = Costs()
    only.add(Work("lora", 2), 60.0, 60.0)
    assert only.predict(Work("full", 4)) == 120
    assert only.predict(Work("locked_image", 4)) is None
    assert only.predict(Work("two_stage", 4)) is None


TWO = SearchSpace("full", {**SPACE.by_strategy, "lora": SPACE.by_strategy["full"]})


def _lora_is_cheap(number: int, lines: Sequence[str], share: float) -> Stage:
    """Full learns less; 300 seconds an epoch of full, 3 of lora."""
    stage = _best_at_a_thousandth(number, lines, share)
    seconds = (3 if "strategy=lora" in lines else 300) * 2 * share
    return Stage(replace(stage.result, seconds=seconds), seconds, seconds)


def test_within_a_time_each_strategy_comes_first_and_what_fits_is_tried() -> None:
    """40 minutes: full takes 200 s for a first stage and 600 s to the end, lora 2 and 6, and three runs follow."""
    lines: list[str] = []
    results = _search(None, run_stage=_lora_is_cheap, space=TWO, seconds=2400, say=lines.append)
    assert (results[0].overrides, results[0].state) == ([], "stopped early")  # 200 + 600 + 3 · 600
    assert results[1].overrides == ["strategy=lora", "train.learning_rate=null", "train.epochs=auto"]
    assert results[1].state == "complete"
    later = [trial.overrides for trial in results[2:]]
    assert len(later) > 20
    assert all("strategy=lora" in overrides for overrides in later)
    assert [line.partition(":")[0] for line in lines] == [
        "trial 1",
        "trial 1 continues, with a gain of +0.167 so far",
        "full is left out",
    ]
    # The time of all stages, and of the three runs that follow.
    spent = 200 + sum(8 if trial.state == "complete" else 2 for trial in results[1:])
    assert spent + 3 * 6 <= 2400
    # With ten hours the recipe is trained to the end, and full is not left out.
    longer = _search(20, run_stage=_lora_is_cheap, space=TWO, seconds=36_000)
    assert longer[0].state == longer[1].state == "complete"
    assert any("strategy=lora" not in trial.overrides for trial in longer[2:])


def test_the_best_strategy_stays_when_it_is_expensive_and_gains_more_with_an_addition() -> None:
    """Both first stages take a tenth of the time; the one with the addition gains more than the one without."""
    added = "objectives.class_captions={}"

    def more(number: int, lines: Sequence[str], share: float) -> Stage:
        stage = _best_at_a_thousandth(number, lines, share)
        assert stage.result.gain is not None
        gain = stage.result.gain.value + (0.1 if added in lines else 0.0)
        seconds = 100.0 if number < 2 else 20.0
        changed = replace(stage.result, gain=Estimate(gain, gain, gain), seconds=0.0)
        return Stage(changed, seconds, seconds)

    search = Search(replace(SPACE, additions=(added,)), 0, more, _work, Budget(None, 1000, 3))
    results = [*search.trials(more(0, [], 1 / 3))]
    assert list(search.space.by_strategy) == ["full"]
    assert len(results) > 5


def test_a_strategy_that_cannot_fit_is_left_out_unseen() -> None:
    """Full costs no less than lora, which takes 200 s for a third of its epochs: 600 and three times that."""
    recipe_is_lora = replace(TWO, recipe_strategy="lora")
    lines: list[str] = []

    def work(overrides: Sequence[str]) -> Work:
        return Work("full" if "strategy=full" in overrides else "lora", 2.0)

    search = Search(recipe_is_lora, 0, _best_at_a_thousandth, work, Budget(None, 2000, 3), None, lines.append)
    results = [*search.trials(FIRST)]
    assert lines[0] == "strategy=full is left out: with its defaults it takes more time than the budget has"
    assert list(search.space.by_strategy) == ["lora"]
    assert results[0].state == "stopped early"


@pytest.mark.parametrize("helps", [True, False])
def test_an_addition_is_in_all_that_follows_only_if_it_gains(helps: bool) -> None:
    added = "objectives.class_captions={}"
    space = replace(SPACE, additions=(added,))

    def more(number: int, lines: Sequence[str], share: float) -> Stage:
        stage = _best_at_a_thousandth(number, lines, share)
        change = (0.1 if helps else -0.1) if added in lines else 0.0
        assert stage.result.gain is not None
        gain = stage.result.gain.value + change
        return replace(stage, result=replace(stage.result, gain=Estimate(gain, gain, gain)))

    search = Search(space, 0, more, _work, Budget(8, None, 3))
    results = [*search.trials(more(0, [], 1 / 3))]
    assert results[1].overrides == [added]
    assert all((added in trial.overrides) == helps for trial in results[2:])
    assert [trial.state for trial in results[:2]] == ["complete", "complete" if helps else "stopped early"]


def test_a_recipe_is_given_an_anchor_and_class_captions_where_they_make_sense(recipe_file: Path) -> None:
    recipe = loading.load_recipe(str(recipe_file), ["objectives={contrastive: {}}"])
    space = search_space(recipe, [], TuningData(300, has_classes=True, has_retention=True))
    assert space.additions == ("objectives.class_captions={}",)
    locked, _ = space.defaults()
    assert locked[-1] == "objectives.anchor.weight=100"
    assert "objectives.anchor.weight=30.0" in space.draw(_First())
    fixed = space.with_fixed(space.additions[0])
    drawn = fixed.draw(_First())
    assert list(loading.load_recipe(str(recipe_file), ["objectives=contrastive", *drawn]).objectives) == [
        "contrastive",
        "class_captions",
        "anchor",
    ]
    # Neither where the recipe has them, nor where nothing is measured or named, nor of the family's own loss.
    own = loading.load_recipe(str(recipe_file), ["objectives={class_captions: {}, anchor: {weight: 7}}"])
    assert search_space(own, [], TuningData(300, True, True)).additions == ()
    assert search_space(own, [], TuningData(300, True, True)).default_lines == ()
    asked = loading.load_recipe(str(recipe_file), ["objectives={contrastive: {}, class_questions: {}}"])
    assert search_space(asked, [], TuningData(300, True, True)).additions == ()
    bare = search_space(recipe, [], TuningData(300))
    assert (bare.additions, bare.default_lines) == ((), ())
    family = loading.load_recipe(str(recipe_file), ["objectives={}"])
    assert search_space(family, [], TuningData(300, True, True)).additions == ()


def test_a_trial_that_forgets_is_not_promoted_and_what_follows_avoids_it() -> None:
    """The larger the rate, the larger the gain; above 10⁻³ half of the retention set is forgotten."""

    def forgets(number: int, lines: Sequence[str], share: float) -> Stage:
        rate = _rate(lines)
        gain = share * (6 + math.log10(rate)) / 4
        lost = -0.5 if rate > 1e-3 else 0.0
        result = TrialResult(
            number, lines, "complete", gain, Estimate(gain, gain, gain), Estimate(lost, lost, lost)
        )
        return Stage(result, 10.0, 10.0)

    counts = []
    for margin in (0.01, None):
        search = Search(SPACE, 0, forgets, _work, Budget(40, None, 3), margin)
        trials = [*search.trials(FIRST)][1:]
        forgot = [trial for trial in trials if trial.loses_more_than(0.01)]
        counts.append(len([trial for trial in forgot if trial.number > 10]))
        assert any(trial.state == "complete" for trial in forgot) == (margin is None)
    assert counts[0] < counts[1] / 2


def test_trials_alone_limit_a_search_without_a_time() -> None:
    assert [trial.state for trial in _search(1)] == ["complete"]
    assert len(_search(2, space=TWO)) == 2


def test_failed_trials_are_counted_and_end_a_search_that_only_fails() -> None:
    def fails(number: int, lines: Sequence[str], share: float) -> Stage:
        return Stage(TrialResult(number, lines, "failed", error="out of memory"), 1.0)

    with pytest.raises(DomainclipError, match="5 trials in a row failed: out of memory"):
        _search(30, run_stage=fails)


class _First:
    """Draws the first choice and the lower end."""

    def suggest_categorical(self, name: str, choices: Sequence[object]) -> object:
        return choices[0]

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return low


def test_the_space_fits_recipe_and_corpus(recipe_file: Path) -> None:
    recipe = loading.load_recipe(str(recipe_file), [])
    space = search_space(recipe, [], TuningData(300))
    assert list(space.by_strategy) == ["full", "locked_image", "lora"]
    assert space.by_strategy["full"]["train.batch_size"] == OneOf((32, 64))
    lines = space.draw(_First())
    assert lines == [
        "train.learning_rate=5e-06",
        "train.epochs=1",
        "strategy.full.layer_decay=1.0",
        "train.batch_size=32",
    ]
    anchored = loading.load_recipe(str(recipe_file), ["objectives={contrastive: {}, anchor: {weight: 50}}"])
    (lora,) = search_space(anchored, ["lora"], TuningData(20)).by_strategy.values()
    assert lora["objectives.anchor.weight"] == Span(30, 1000)
    assert lora["train.batch_size"] == OneOf((20,))
    with pytest.raises(RecipeError, match=r"--strategy: lorra: .*did you mean .lora"):
        search_space(recipe, ["lorra"], TuningData(300))
    # Every line of every strategy is a valid override.
    for name in space.by_strategy:
        drawn = SearchSpace("full", {name: space.by_strategy[name]}).draw(_First())
        assert list(loading.load_recipe(str(recipe_file), drawn).strategy) == [name]


def test_the_time_of_a_complete_trial_is_read_again_whatever_its_name_is(tmp_path: Path) -> None:
    runner = TrialRunner("recipe", [], tmp_path)
    first, second = (Run(name, 0, None, tmp_path / name) for name in ("v1.5-aaaa", "v1.6-aaaa"))
    assert runner.whole_seconds(first) == 0
    runner._whole(first).write_text("12.5\n")
    assert (runner.whole_seconds(first), runner.whole_seconds(second)) == (12.5, 0)
    runner._whole(second).write_text("")  # of a full disk
    assert runner.whole_seconds(second) == 0


def test_a_recipe_that_trains_nothing_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match="strategy: training_free trains no weight, and chooses on validation"
    ):
        tune("training_free", ["base=none/none"], tmp_path, TuneOptions())


def test_what_reaches_no_weight_of_the_recipe_is_not_added(recipe_file: Path) -> None:
    """An anchor holds the text tower: one that is locked needs none, and every trial with it would fail."""
    locked = ["strategy={locked_text: {}}", "objectives={contrastive: {}}"]
    runner = TrialRunner(str(recipe_file), locked, Path())
    space = search_space(runner.load([]), [], TuningData(300, True, True), runner.fits)
    assert space.default_lines == ()
    assert "objectives.anchor.weight" not in space.by_strategy["locked_text"]
    assert space.additions == ("objectives.class_captions={}",)  # which teaches the images as well
    open_text = TrialRunner(str(recipe_file), locked[1:], Path())
    assert search_space(open_text.load([]), [], TuningData(300, True, True), open_text.fits).default_lines


def _trial(number: int, gain: float, kept: float) -> TrialResult:
    changes = (Estimate(value, value - 0.01, value + 0.01) for value in (gain, kept))
    return TrialResult(number, [f"train.epochs={number}"], "complete", 0.3 + gain, *changes)


def _tuning(*trials: TrialResult) -> Tuning:
    metric = "zero_shot/validation/accuracy"
    return Tuning("art", "art", 0.01, "domainclip tune", {}, "base", metric, 0.3, trials=trials)


def test_the_largest_gain_is_chosen_and_the_frontier_has_what_nothing_surpasses() -> None:
    tuning = _tuning(_trial(0, 0.1, 0.0), _trial(1, 0.3, -0.05), _trial(2, 0.2, -0.06), _trial(3, 0.2, -0.01))
    assert tuning.chosen is not None
    assert tuning.chosen.number == 3  # 1 and 2 have lost more than the margin
    assert replace(tuning, margin=None).chosen == tuning.trials[1]
    assert [trial.number for trial in tuning_page.frontier(tuning.complete)] == [1, 3, 0]
    first, recipe, general, caution = tuning_page.closing_lines(tuning)
    assert first == "Chosen: trial 3: zero-shot accuracy on validation 0.300 → 0.500, with train.epochs=3."
    assert recipe == "The recipe as it is: 0.400, 0.100 less."
    assert general.startswith("The same metric on the retention set: −0.010")
    assert "looks better on the split that chose it" in caution
    (line,) = tuning_page.closing_lines(_tuning(_trial(0, -0.1, 0.0)))
    assert line == (
        "No trial is better than the base in zero-shot accuracy on validation (0.300) and has lost at most "
        "0.01 in general: the base stays."
    )


def test_of_gains_that_cannot_be_told_apart_the_one_that_forgets_least_is_chosen() -> None:
    """Intervals of 0.02: a standard error of 0.0051, so that 0.296 is as good as 0.3, and 0.294 is not."""
    trials = [_trial(0, 0.3, -0.009), _trial(1, 0.296, 0.004), _trial(2, 0.294, 0.008)]
    assert _tuning(*trials).chosen == trials[1]
    # Negative controls: without a retention set there is nothing but the gain; beyond an error it decides.
    bare = [replace(trial, retention=None) for trial in trials]
    assert replace(_tuning(*bare), margin=None).chosen == bare[0]
    assert _tuning(trials[0], trials[2]).chosen == trials[0]


def test_both_halves_of_the_retention_set_rule_a_trial_out() -> None:
    """-0.014 on the half that did not select alpha and +0.008 on the other: together -0.003."""
    trial = replace(_trial(1, 0.3, -0.014), selecting=0.008)
    assert trial.change_in_general == pytest.approx(-0.003)
    assert not trial.loses_more_than(0.01)
    assert trial.loses_more_than(0.002)
    assert not trial.loses_more_than(None)
    assert replace(trial, selecting=None).loses_more_than(0.01)
    (line,) = (line for line in tuning_page.closing_lines(_tuning(trial)) if "retention set" in line)
    assert line == "The same metric on the retention set: −0.003 (other half −0.014, −0.024 to −0.004)."


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return runs_in_process(monkeypatch)


def test_a_whole_search_chooses_on_validation_and_goes_on(
    recipe_file: Path, tmp_path: Path, taken: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    conftest.with_general(recipe_file, tmp_path / "general", 24)
    out = tmp_path / "out"
    # A recipe that interpolates by itself is held to the margin as well.
    shared = ["train.epochs=1", "probes=zero_shot", "weight_interpolation={alphas: [0.5, 1.0]}"]
    page = tune(
        str(recipe_file), shared, out, TuneOptions(trials=1, seeds=1, final=False, strategies=["full"])
    )
    trained = len(taken)
    first = loading.load_recipe(str(next((out / "trials" / "recipes").glob("*.yaml"))), [])
    assert first.weight_interpolation is not None
    assert (first.weight_interpolation.max_retention_drop, first.weight_interpolation.alphas) == (
        0.01,
        [0.5, 1.0],
    )
    assert page == out / "tuning.html"
    results = json.loads((out / "tuning.json").read_text())
    assert [trial["number"] for trial in results["trials"]] == [0]
    assert results["metric"].startswith("zero_shot/validation/")
    halves = [(trial["retention"], trial["selecting"]) for trial in results["trials"]]
    assert not any(half is None for trial in halves for half in trial)
    for run in (out / "trials").glob("squares-*/results.json"):
        assert {row["dataset"] for row in json.loads(run.read_text())["results"]} == {"validation", "general"}
    # Again with one more: nothing is trained twice, and the trials before are the same.
    arguments = ["tune", "--recipe", str(recipe_file), *shared, "--run-dir", str(out), "--trials", "2"]
    with pytest.raises(SystemExit):
        main([*arguments, "--strategy", "full", "--seeds", "1", "--quiet", "--json"])
    again = json.loads(capsys.readouterr().out)
    assert again["trials"][:1] == results["trials"]
    assert 1 <= len(taken) - trained <= 3  # stages of the new trial
    if again["chosen"] is not None:
        best = loading.load_recipe(str(out / "best.yaml"), [])
        assert best.evaluate.split == "test"
        assert (out / again["final"]).is_file()
        assert re.search(r'href="final/report.html"', page.read_text())
