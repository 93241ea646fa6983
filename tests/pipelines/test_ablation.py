"""`ablate`: what a plan may say, runs that are not repeated, faults that are written down, and the table."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from domainclip.cli.app import main
from domainclip.config import builtin, loading
from domainclip.errors import DomainclipError, Interrupted, RecipeError
from domainclip.evaluation import probe_runs
from domainclip.evaluation.base import EvaluationSet
from domainclip.pipelines import finetune
from domainclip.pipelines.ablation import choice, measure, plan, runs
from domainclip.pipelines.ablation.ablate import ablate
from domainclip.pipelines.ablation.runs import Ended
from domainclip.report.ablation_results import AblationFile
from domainclip.training.run_context import RunOptions
from tests import conftest
from tests.support.runs_in_process import runs_in_process

PLAN = """
recipe: squares.yaml
overrides: [probes=zero_shot]
variants:
  full: []
  locked image: {{strategy: locked_image, train.epochs: 2}}
seeds: [0, 1]
reference: full
{more}
"""
NOTHING = "strategy: {full: {image_lr_factor: 0, text_lr_factor: 0, train_logit_scale: false}}"


@pytest.fixture
def plan_file(tmp_path: Path, recipe_file: Path) -> Path:
    conftest.with_general(recipe_file, tmp_path / "general", 24)
    recipe_file.write_text(recipe_file.read_text().replace("epochs: 3", "epochs: 1"))
    return _plan(tmp_path)


@dataclass(frozen=True)
class Done:
    """An ablation that is complete, made once; copy it before anything in it is changed."""

    folder: Path
    taken: list[str]

    def copied(self, to: Path) -> tuple[Path, Path]:
        """The plan and what it left, in another folder."""
        shutil.copytree(self.folder, to, dirs_exist_ok=True)
        return to / "weights.yaml", to / "out"


def _swapped(corpus: Path, to: Path) -> Path:
    """The squares with a validation split of eight groups, enough for intervals, and a test split of four."""
    shutil.copytree(corpus, to)
    table = (to / "metadata.csv").read_text()
    names = {"val": "test", "test": "val"}
    (to / "metadata.csv").write_text(re.sub(r"(val|test)$", lambda m: names[m[1]], table, flags=re.MULTILINE))
    return to


def _guard_test_split(patch: pytest.MonkeyPatch) -> None:
    """From now on, measuring any item of the test split of the swapped squares raises."""
    plain, test_items = probe_runs.sort_items, {f"images/{i:03d}.png" for i in range(64) if i // 8 % 8 == 3}

    def guarded(data: EvaluationSet) -> Any:
        if data.name != "general" and test_items & set(data.items["id"]):
            raise AssertionError("a test item is measured")
        return plain(data)

    patch.setattr(probe_runs, "sort_items", guarded)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, base: Path, corpus: Path) -> Done:
    folder = tmp_path_factory.mktemp("ablation")
    file = folder / "squares.yaml"
    corpus = _swapped(corpus, tmp_path_factory.mktemp("swapped") / "squares")
    file.write_text(conftest.RECIPE.format(base=base, corpus=corpus).replace("epochs: 3", "epochs: 1"))
    general = tmp_path_factory.mktemp("outside") / "general"
    conftest.with_general(file, general, 24)
    planned = _plan(folder)
    planned.write_text(planned.read_text().replace("probes=zero_shot", '"probes=[zero_shot, retrieval]"'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.getbasetemp() / "home"))  # before the function's own is set
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("DOMAINCLIP_CACHE", str(folder / "cache"))
        taken = runs_in_process(patch)
        _guard_test_split(patch)
        page = ablate(planned, folder=folder / "out", quiet=True, command="domainclip ablate")
    assert page == folder / "out" / "ablation.html"
    return Done(folder, taken)


def _plan(folder: Path, more: str = "", **said: Any) -> Path:
    file = folder / "weights.yaml"
    text = PLAN.format(more=more)
    for old, new in said.items():
        text = text.replace({"variants": "train.epochs: 2", "reference": "reference: full"}[old], new)
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs in this process, which saves the seconds in which each would load its libraries; their names."""
    return runs_in_process(monkeypatch)


def _table(folder: Path) -> AblationFile:
    return AblationFile.model_validate_json((folder / "ablation.json").read_bytes())


def test_two_variants_with_two_seeds(done: Done, tmp_path: Path, here: list[str]) -> None:
    plan_file, out = done.copied(tmp_path)
    assert done.taken == ["full-seed0", "full-seed1", "locked_image-seed0", "locked_image-seed1"]
    table = _table(out)
    assert table.valid
    heads = [(one.probe, one.dataset) for one in table.results]
    assert heads == [(p, d) for d in ("validation", "general") for p in ("zero_shot", "retrieval")]
    assert [one["seeds"] for one in table.variants] == [[0, 1], [0, 1]]
    assert table.variants[0]["weights_that_learn"] > table.variants[1]["weights_that_learn"] > 0
    assert table.variants[1]["overrides"] == ["strategy=locked_image", "train.epochs=2"]
    for one in table.results:
        for variant in one.variants:
            assert variant.difference.value == pytest.approx((variant.mean or 0) - (one.base.value or 0))
            assert (variant.from_reference is None) == (variant.variant == "full")
            for seed, value in variant.seeds.items():
                folder = out / f"{variant.variant.replace(' ', '_')}-seed{seed}"
                said = json.loads((folder / "results.json").read_text())["results"]
                (own,) = (
                    r
                    for r in said
                    if (r["probe"], r["dataset"], r["metric"]) == (one.probe, one.dataset, one.metric)
                )
                assert value == own["adapted"]["value"]  # as the run's own report has it
                assert one.base.value == own["base"]["value"]
    # The seeds are those of the recipe: their runs differ, and a run alone gives the same bytes.
    alone = loading.load_recipe(str(tmp_path / "squares.yaml"), ["train.seed=1"])
    finetune.finetune(alone, RunOptions(folder=tmp_path / "alone", quiet=True))
    weights = [
        (f / "model" / "model.safetensors").read_bytes()
        for f in (out / "full-seed0", out / "full-seed1", tmp_path / "alone")
    ]
    assert weights[1] == weights[2] != weights[0]
    _written(out)
    # The same command again: nothing is trained, and the table is the same.
    ablate(plan_file, folder=out, quiet=True, command="domainclip ablate")
    assert here == []
    assert _table(out).results == table.results


def _written(out: Path) -> None:
    """Markdown, CSV and page say what the file says."""
    told = (out / "ablation.md").read_text()
    assert "- locked image compared with full: " in told
    assert "| zero-shot accuracy, validation, n 16, 8 groups |" in told
    assert told.index("validation, n 16") < told.index(
        "general, n 24"
    )  # the domain first, what was kept beside it
    assert "strategy locked image: [arXiv:2111.07991](https://arxiv.org/abs/2111.07991)" in told
    rows = list(csv.DictReader(io.StringIO((out / "ablation.csv").read_text())))
    assert len(rows) == 8
    assert {row["variant"] for row in rows} == {"full", "locked image"}
    assert str(out) not in told + (out / "ablation.json").read_text()
    page = (out / "ablation.html").read_text()
    assert '<h2 id="plane">Gain against forgetting</h2>' in page
    assert page.count('<figure class="plane">') == 2  # zero-shot and retrieval
    assert '<a href="https://arxiv.org/abs/2111.07991">arXiv:2111.07991</a>' in page


def test_what_was_interrupted_goes_on_and_what_failed_is_written_down(
    done: Done, tmp_path: Path, here: list[str]
) -> None:
    file, out = done.copied(tmp_path)
    text = (
        file.read_text() + "metrics: [zero_shot/validation/macro_accuracy, zero_shot/validation/macro_f1]\n"
    )
    file.write_text(text.replace("train.epochs: 2}", f"train.epochs: 2}}\n  nothing learns: {{{NOTHING}}}"))
    with pytest.raises(DomainclipError) as caught:
        ablate(file, folder=out, quiet=True)
    assert str(caught.value) == (
        "2 of 6 runs failed: nothing_learns-seed0, nothing_learns-seed1; the others stand in "
        f"{out / 'ablation.html'}"
    )
    assert caught.value.code == 2
    assert here == ["nothing_learns-seed0", "nothing_learns-seed1"]  # a further variant repeats no other
    table = _table(out)
    assert table.variants[2]["failed"] == dict.fromkeys(
        "01", "strategy.full: with these options no weight learns"
    )
    assert [one.metric for one in table.results] == ["macro_accuracy", "macro_f1"]
    assert (
        "- nothing learns: no complete run; see the failed runs below." in (out / "ablation.md").read_text()
    )
    assert (
        "- nothing learns, seed 1: strategy.full: with these options no weight learns"
        in (out / "ablation.md").read_text()
    )
    # Killed between its last step and its report, a run goes on from its checkpoint.
    model = out / "full-seed1" / "model" / "model.safetensors"
    before = model.read_bytes()
    for name in ("README.md", "results.json", "model/model.safetensors"):
        (out / "full-seed1" / name).unlink()
    here.clear()
    with pytest.raises(DomainclipError):
        ablate(file, folder=out, quiet=True)
    # What was refused has never begun.
    assert here == ["full-seed1 resumed", "nothing_learns-seed0", "nothing_learns-seed1"]
    assert model.read_bytes() == before
    assert _table(out).results == table.results


def test_what_is_not_valid_of_one_run_is_not_of_the_table(
    plan_file: Path, tmp_path: Path, here: list[str]
) -> None:
    """The general set is the corpus itself: the models were trained on what shows what they forgot."""
    squares = loading.load_recipe(str(tmp_path / "squares.yaml")).corpus.path
    shutil.rmtree(tmp_path / "general")
    shutil.copytree(squares, tmp_path / "general")
    text = plan_file.read_text().replace("seeds: [0, 1]", "seeds: [0]")
    plan_file.write_text(text.replace("  locked image: {strategy: locked_image, train.epochs: 2}\n", ""))
    ablate(plan_file, folder=tmp_path / "out", quiet=True)
    table = _table(tmp_path / "out")
    assert not table.valid
    assert table.warnings[0].startswith("full-seed0 is not valid: general: ")
    assert {one.verdict for result in table.results for one in result.variants} == {None}
    page = (tmp_path / "out" / "ablation.html").read_text()
    assert "This table is not valid" in page
    assert "Summary" not in page
    assert 'class="plane"' not in page


def test_a_folder_of_another_recipe_is_not_taken_for_it(done: Done, tmp_path: Path, here: list[str]) -> None:
    plan_file, out = done.copied(tmp_path)
    text = plan_file.read_text().replace("seeds: [0, 1]", "seeds: [0]").replace("reference: full", "")
    plan_file.write_text(text.replace("  full: []\n", "").replace("train.epochs: 2", "train.epochs: 4"))
    with pytest.raises(RecipeError) as caught:
        ablate(plan_file, folder=out, quiet=True)
    assert str(caught.value) == (
        f"{out / 'locked_image-seed0'}: holds a run of another recipe (train.epochs: 2.0, now 4.0): name another "
        "--run-dir, or remove that folder"
    )
    assert here == []
    # Another way to choose α ends the same training again.
    plan_file.write_text(plan_file.read_text().replace("train.epochs: 4", "train.epochs: 2"))
    changes = ["weight_interpolation={alphas: [0.5]}"]
    ablate(plan_file, changes, out, quiet=True)
    assert here == ["locked_image-seed0 resumed"]


def test_runs_of_their_own_process(
    plan_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One that ends well, one that fails, and the whole command with its exit code."""
    text = plan_file.read_text().replace("strategy: locked_image, train.epochs: 2", NOTHING)
    plan_file.write_text(
        text.replace("seeds: [0, 1]", "seeds: [3]\nmetrics: [zero_shot/validation/macro_accuracy]")
    )
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stop:
        main(["ablate", str(plan_file), "--run-dir", str(out), "-q"])
    assert stop.value.code == 2
    assert capfd.readouterr().err.splitlines()[-1] == (
        f"domainclip: 1 of 2 runs failed: locked_image-seed3; the others stand in {out / 'ablation.html'}"
    )
    table = _table(out)
    assert table.variants[1]["failed"] == {"3": "strategy.full: with these options no weight learns"}
    assert list(table.results[0].variants[0].seeds) == ["3"]
    assert (out / "recipes" / "full-seed3.yaml").is_file()


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("reference: full", "reference: ful", 'weights.yaml: reference: no variant "ful": did you mean "full"?'),
        ("seeds:", "seed:", 'weights.yaml: seed: unknown key: did you mean "seeds"?'),
        ("seeds: [0, 1]", "seeds: []", "weights.yaml: seeds: list should have at least 1 item after validation, not 0, got []"),
        ("  full: []", "  base: []", 'weights.yaml: variants "base": the base itself is always there: call it otherwise'),
        ("  full: []", "  locked_image: []", 'weights.yaml: variants "locked_image" and "locked image" would share the folder locked_image'),
        ("  full: []", '  "?": []', 'weights.yaml: variants "?": a name needs a letter or a digit'),
        ("train.epochs: 2", "train.epoch: 2", 'weights.yaml: variants "locked image": squares.yaml: train.epoch: unknown key: did you mean "epochs"?'),
        ("train.epochs: 2", "train.seed: 2", 'weights.yaml: variants "locked image": train.seed: set it under seeds'),
        (
            "train.epochs: 2",
            "train: {seed: 2}",
            'weights.yaml: variants "locked image": train.seed: set it under seeds',
        ),
        ("train.epochs: 2", "name: two", 'weights.yaml: variants "locked image": name: runs are named after their variants: leave it out'),
        ("overrides: [", "overrides: [train.seed=3, ", "weights.yaml: overrides: train.seed: set it under seeds"),
        ("  locked image:", f"  {'long ' * 60}:", 'weights.yaml: variants "long long long long …": a name may have 200 characters, for its folder is called so'),
        ("overrides: [", "overrides: [evaluate.split=test, ", "weights.yaml: overrides: evaluate.split: variants are compared on the validation split: leave it out, and measure the chosen one on the test split with --final"),
        ("train.epochs: 2", "evaluate: {split: test}", 'weights.yaml: variants "locked image": evaluate.split: variants are compared on the validation split: leave it out, and measure the chosen one on the test split with --final'),
        ("train.epochs: 2", "probes: knn", 'weights.yaml: variants "locked image": changes probes, which is the same for the whole table: set it under overrides'),
        ("train.epochs: 2", "corpus.templates: [x]", 'weights.yaml: variants "locked image": changes corpus.templates, which is the same for the whole table: set it under overrides'),
        ("seeds: [0, 1]", "metrics: [accuracy]", 'weights.yaml: metrics "accuracy": write it as probe/set/metric, as in zero_shot/validation/macro_accuracy'),
        ("seeds: [0, 1]", "metrics: [zero_shot/validation/acuracy]", 'weights.yaml: metrics "zero_shot/validation/acuracy": nothing of that name is measured: did you mean "zero_shot/validation/accuracy"?'),
    ],
)  # fmt: skip
def test_a_wrong_plan(
    plan_file: Path, tmp_path: Path, here: list[str], old: str, new: str, line: str
) -> None:
    text = plan_file.read_text()
    assert old in text
    text = text.replace(old, new)
    plan_file.write_text(text.replace("reference: full", "") if "  full:" in old else text)
    with pytest.raises(RecipeError) as caught:
        ablate(plan_file, folder=tmp_path / "out", quiet=True)
    assert str(caught.value) == line
    assert here == []  # before anything is trained


def test_a_recipe_is_no_plan(recipe_file: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        ablate(recipe_file, folder=tmp_path / "out", quiet=True)
    assert str(caught.value) == (
        "squares.yaml: is a recipe and no plan: a plan names a recipe and its variants, docs/guide/ablation.md"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_asks_every_run_to_save_and_starts_no_other(
    plan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Also when the terminal is closed, and when SLURM warns: no run goes on alone."""
    before = signal.signal(number, signal.SIG_DFL)  # these tests may run under nohup
    waits = (
        "import signal, sys, time\n"
        "for heeded in (signal.SIGTERM, signal.SIGUSR1):\n"
        "    signal.signal(heeded, lambda *_: sys.exit(143))\n"
        # Closed here: what a handler raises while a file is thrown away is lost.
        f"with open({str(tmp_path / 'ready')!r}, 'a') as file: file.write('x')\n"
        "time.sleep(60)"
    )
    monkeypatch.setattr(runs, "_command", lambda *_: [sys.executable, "-c", waits])

    def kill_when_ready() -> None:
        while not ready.exists() or not ready.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    ready = tmp_path / "ready"
    threading.Thread(target=kill_when_ready).start()
    planned = plan.load(str(plan_file), [], tmp_path / "out")
    with pytest.raises(Interrupted) as caught:
        runs.run_all(planned.runs, jobs=1, processes=None, quiet=True, say=lambda _: None)
    assert str(caught.value) == "stopped with 0 of 4 runs complete; the same command continues them"
    assert caught.value.code == 143
    assert (tmp_path / "ready").read_text() == "x"
    assert signal.signal(number, before) == signal.SIG_DFL


def test_a_run_that_ends_without_a_word_is_told_by_its_signal(
    plan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = "import os, sys; sys.stderr.write('Traceback: patient Smith'); os.kill(os.getpid(), 9)"
    monkeypatch.setattr(runs, "_command", lambda *_: [sys.executable, "-c", killed])
    planned = plan.load(str(plan_file), [], tmp_path / "out")
    ended = runs.run_all(planned.runs, jobs=2, processes=None, quiet=True, say=lambda _: None)
    assert [(one.run.seed, one.error, one.code) for one in ended] == [
        (seed, "ended without a word (signal 9)", -9) for seed in (0, 1, 0, 1)
    ]
    with pytest.raises(DomainclipError) as caught:
        runs.check_any_complete(ended)
    assert str(caught.value) == "none of 4 runs is complete; full-seed0: ended without a word (signal 9)"


BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "ablations"


@pytest.mark.parametrize(
    ("name", "fewest"),
    [
        *((name, 12) for name in builtin.builtin_names("recipes/ablations", ".yaml")),
        *((str(file), 6) for file in sorted(BENCHMARKS.glob("*.yaml"))),
    ],
)
def test_the_plans_that_ship_load_and_choose_on_validation(
    name: str, fewest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("cxr", "general", "domainclip-demo/chest_phantom", "domainclip-demo/generated_pictures"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path)
    planned = plan.load(name, [], None)
    assert len(planned.runs) == len(planned.plan.variants) * len(planned.plan.seeds)
    assert len({one.folder for one in planned.runs}) == len(planned.runs) >= fewest
    assert {one.evaluate.split for one in (planned.measured, *(run.recipe for run in planned.runs))} == {
        "validation"
    }
    assert {one.seed for one in planned.runs} == {one.recipe.train.seed for one in planned.runs}


def test_help_does_not_import_torch() -> None:
    code = "import sys\nfrom domainclip.cli.app import main\ntry:\n main(['ablate', '--help'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_fault_that_names_a_path_does_not_stand_in_the_table(plan_file: Path, tmp_path: Path) -> None:
    from domainclip.pipelines.ablation.table import public_error

    one = plan.load(str(plan_file), [], tmp_path / "out").runs[0]
    assert public_error(Ended(one, f"{tmp_path}/general: is empty", 3)) == "(local): is empty"
    assert public_error(Ended(one, "/data/smith/scan.dcm: unreadable", 3)) == (
        "exit code 3; its message names a local path and stays here"
    )


def test_figures_of_a_hostile_variant_are_inert(done: Done, tmp_path: Path, here: list[str]) -> None:
    plan_file, out = done.copied(tmp_path)
    text = plan_file.read_text().replace("  full: []", '  "<script>alert(1)</script> |": []')
    plan_file.write_text(text.replace("seeds: [0, 1]", "seeds: [0]").replace("reference: full", ""))
    name = "script_alert_1_script-seed0"
    own = (out / "full-seed0").rename(out / name) / "recipe.yaml"
    own.write_text(own.read_text().replace("name: full-seed0", f"name: {name}"))
    ablate(plan_file, folder=out, quiet=True)
    assert here == []
    assert "&lt;script&gt;" in (out / "ablation.html").read_text()
    assert "<script>" not in (out / "ablation.html").read_text() + (out / "ablation.md").read_text()
    assert (
        "one training run: the intervals hold the luck of the items, and not that of the seed"
        in (out / "ablation.md").read_text()
    )


def test_a_table_says_what_was_chosen_on_what_it_shows(plan_file: Path, tmp_path: Path) -> None:
    text = plan_file.read_text().replace("train.epochs: 2", "weight_interpolation: {max_retention_drop: 0.1}")
    plan_file.write_text(text)
    said = measure.measure_ablation_baseline(plan.load(str(plan_file), [], tmp_path / "out")).warnings
    assert "locked image: α was selected on the validation split, so metrics on it are too high" in said
    assert (
        "weight_interpolation.max_retention_drop chooses on half of the general set: the other half is measured"
        in said
    )


def test_the_chosen_variant_and_the_reference_are_measured_on_the_test_split(
    done: Done, tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_file, out = done.copied(tmp_path)
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    chosen = AblationFile.model_validate_json((out / "ablation.json").read_bytes()).choice
    assert chosen is not None
    assert chosen["metric"] == "zero_shot/validation/accuracy"
    # Every variant may lose what it wants, so that there is a choice whatever these tiny models do.
    compared = plan_file.read_text().replace("reference: full", "reference: locked image")
    plan_file.write_text(compared + "max_retention_drop: null\n")
    # Negative control of the fixture, which was made under this guard: a measured test item would have raised.
    with monkeypatch.context() as patch:
        _guard_test_split(patch)
        with pytest.raises(AssertionError, match="a test item is measured"):
            ablate(plan_file, folder=out, quiet=True, final=True)
    page = ablate(plan_file, folder=out, quiet=True, final=True)
    assert here == []  # nothing is trained for it
    chosen = _table(out).choice
    assert chosen is not None
    assert page == out / "final.html"
    final = AblationFile.model_validate_json((out / "final.json").read_bytes())
    assert chosen["variant"] == "full"
    assert [variant["name"] for variant in final.variants] == ["full", "locked image"]
    assert final.reference == "locked image"  # which plays no part in the choice
    assert {result.dataset for result in final.results} == {"test", "general"}
    assert final.choice is None
    assert final.protocol["readings"] == "the test split has been read once, for 4 adapted models"
    # The two seeds of the winner, and the values that `eval` would give: one model on eight items.
    (accuracy,) = (r for r in final.results if (r.dataset, r.metric) == ("test", "accuracy"))
    assert accuracy.items == 8
    assert list(accuracy.variants[0].seeds) == ["0", "1"]
    ablate(plan_file, folder=out, quiet=True, final=True)
    again = AblationFile.model_validate_json((out / "final.json").read_bytes())
    assert (
        again.protocol["readings"] == final.protocol["readings"]
    )  # the same model again is no other reading
    told = (out / "ablation.md").read_text()
    assert f"Chosen on the validation split: {chosen['variant']}, zero-shot accuracy" in told
    assert "add --final to the command" in told
    assert f'download="{page.stem}.csv"' in page.read_text()


def test_the_base_stays_where_no_variant_qualifies(
    done: Done, tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    plan_file, out = done.copied(tmp_path)
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    _guard_test_split(monkeypatch)
    monkeypatch.setattr(choice, "_drop", lambda *_: 0.9)
    assert ablate(plan_file, folder=out, final=True) == out / "ablation.html"
    line = "No variant is chosen: none is better than the base in zero-shot accuracy and loses at most 0.05 on the retention set"
    assert f"--final: nothing is measured on the test split: {line}" in capfd.readouterr().err
    assert line in (out / "ablation.md").read_text()
    assert not (out / "final.html").exists()
