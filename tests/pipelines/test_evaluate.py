"""`eval` of one, two and several models; suites, classes and prompts of one's own; what makes it invalid."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from domainclip.cli.arguments import models_and_overrides, paths_and_overrides
from domainclip.config import builtin
from domainclip.data.cards import Card
from domainclip.errors import DataError, DomainclipError, RecipeError
from domainclip.evaluation import suites
from domainclip.evaluation.base import Probe
from domainclip.evaluation.evaluate import compare_models
from domainclip.evaluation.probes.zero_shot import ZeroShot
from domainclip.evaluation.verdicts import BETTER, SAME, WORSE, add_verdicts_together
from domainclip.pipelines.eval_request import EvalRequest
from domainclip.pipelines.evaluate import evaluate_models
from domainclip.report.comparison_file import ComparisonFile
from domainclip.report.writer import write_comparison
from domainclip.training.run_context import RunOptions
from tests.evaluation.example_sets import CLASSES, animals, skilled
from tests.evaluation.probes.array_encoder import ArrayEncoder, evaluation_set
from tests.report.made_results import context, row
from tests.support.tiny_models import tiny_clip

PROBES: dict[str, Probe] = {"zero_shot": ZeroShot()}


# --- several models on given vectors -------------------------------------------------------------------


def test_each_model_stands_against_the_first(tmp_path: Path) -> None:
    data = evaluation_set(animals(160), CLASSES)
    models = [skilled(160, 0.7), skilled(160, 0.95, seed=1), skilled(160, 0.4, seed=2), skilled(160, 0.7)]
    found = compare_models(models, [data], PROBES, resamples=400)
    heads = [next(one for one in each.rows if one.primary) for each in found]
    assert [head.verdict for head in heads] == [BETTER, WORSE, SAME]
    assert {head.base.value for head in heads} == {heads[0].base.value}
    assert heads[0].base_scores.tolist() == heads[2].adapted_scores.tolist()  # the first and last are equal
    names = ["first", "better", "worse", "again"]
    page = write_comparison(tmp_path, found, context(), {name: {"name": name} for name in names})
    assert page == tmp_path / "compare.html"
    file = ComparisonFile.model_validate_json((tmp_path / "results_compare.json").read_bytes())
    head = next(one for one in file.results if one.headline)
    assert [value.model for value in head.values] == names
    assert [value.verdict for value in head.values] == [None, BETTER, WORSE, SAME]
    assert head.values[0].difference is None
    text = (tmp_path / "compare.md").read_text()
    best = max(value.value.value or 0 for value in head.values)
    assert f"**{best:.3f}**" in text
    assert "| first | better | worse | again |" in text
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "compare.html",
        "compare.md",
        "results_compare.json",
        "table.md",
        "table.tex",
    ]


def test_the_thresholds_of_every_model_are_recorded(tmp_path: Path) -> None:
    """One axis: ill is 1 or 0.6 of it, well 0 or -1; a threshold is midway, 0.3, times the scale of the model."""
    classes = {"fluid": {"positive": ["fluid"], "negative": ["other"]}}
    vectors = {"fluid": [1.0, 0.0, 0.0], "other": [0.0, 1.0, 0.0]}
    shown = {0: [1.0, 0.0, 0.0], 1: [0.6, 0.0, 0.8], 2: [0.0, 0.0, 1.0], 3: [0.0, 1.0, 0.0]}
    rows = [{"id": f"{i}", "labels": ["fluid"] if i % 4 < 2 else []} for i in range(80)]
    plain = evaluation_set(rows, classes, multi_label=True)
    data = replace(plain, validation=plain.items)
    images = {f"{i}": shown[i % 4] for i in range(80)}
    models = [ArrayEncoder(images, vectors, scale=scale) for scale in (10.0, 20.0, 20.0, 40.0)]
    found = compare_models(models, [data], PROBES, resamples=100)
    names = ["base", "a", "b", "c"]
    write_comparison(tmp_path, found, context(), {name: {"name": name} for name in names})
    file = ComparisonFile.model_validate_json((tmp_path / "results_compare.json").read_bytes())
    (entry,) = file.protocol["probes"]
    chosen = {name: details["thresholds"]["fluid"] for name, details in entry["details_by_model"].items()}
    assert chosen == pytest.approx({"base": 3.0, "a": 6.0, "b": 6.0, "c": 12.0})
    assert "further_details" not in entry


def test_models_beside_each_other_are_judged_together() -> None:
    """p = 0.03 is a difference alone; beside three others that differ in nothing, it is not (Bonferroni)."""
    lucky = row(difference=(0.1, 0.01, 0.19, 0.03))
    others = [row(difference=(0.0, -0.1, 0.1, 1.0)) for _ in range(3)]
    assert add_verdicts_together([[lucky]])[0][0].verdict == BETTER
    together = add_verdicts_together([[lucky], *([one] for one in others)])
    assert [rows[0].verdict for rows in together] == [SAME] * 4
    sure = row(difference=(0.1, 0.05, 0.15, 0.001))
    assert add_verdicts_together([[sure], *([one] for one in others)])[0][0].verdict == BETTER


def test_two_models_make_a_report_with_its_control() -> None:
    data = evaluation_set(animals(160), CLASSES)
    (found,) = compare_models([skilled(160, 0.6), skilled(160, 0.9, seed=1)], [data], PROBES, resamples=300)
    (control,) = found.controls
    assert (control.dataset, control.metric, control.itself) == ("test", "macro_accuracy", SAME)
    assert control.share <= 0.12  # 5 % are expected of 100 swaps
    (alone,) = compare_models([skilled(160, 0.6)], [data], PROBES, resamples=300)
    assert alone.controls == []


# --- suites, classes and prompts ------------------------------------------------------------------------


def test_every_suite_that_ships_loads_and_builds() -> None:
    names = ["all", "core", "medical", "medical_benchmark", "multilingual"]
    from domainclip import registry

    assert builtin.builtin_names("suites", ".yaml") == names
    for name in names:
        assert suites.load(name).assemble()
    assert set(suites.load("all").probes) == set(registry.names("probes"))


ERRORS = {
    "no such suite": (None, 'suites: no file or built-in name "cor": did you mean "core"?'),
    "unknown key": ("probs: {}", 'own.yaml: probs: unknown key: did you mean "probes"?'),
    "no probes": ("sets: {}", "own.yaml: probes: field required"),
    "a list": ("[zero_shot]", "own.yaml: a suite is a mapping of keys to values"),
    "unknown probe": (
        "probes: {zero_shoot: {}}",
        'probes: unknown component "zero_shoot": did you mean "zero_shot"?',
    ),
    "unknown option": (
        "probes: {retrieval: {galery: 3}}",
        'probes.retrieval.galery: unknown option: did you mean "gallery"?',
    ),
    "outside": (
        "probes: [retrieval]\nsets: {other: {path: /etc/passwd}}",
        "own.yaml: sets.other: /etc/passwd lies outside the working folder and the folder of this file, which "
        "was downloaded: name the path on the command line, or copy the file",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_wrong_suite_is_named(case: str, tmp_path: Path) -> None:
    text, message = ERRORS[case]
    (tmp_path / "own.yaml").write_text(text or "")
    if case == "outside":
        record = tmp_path / ".cache/huggingface/download/own.yaml.metadata"
        record.parent.mkdir(parents=True)
        record.touch()
    with pytest.raises(RecipeError) as error:
        suites.load("cor" if text is None else str(tmp_path / "own.yaml")).assemble()
    assert str(error.value) == message


def test_classes_may_be_many_and_their_file_may_be_wrong(tmp_path: Path) -> None:
    names = [f"class number {i}" for i in range(40)]
    assert list(suites.parse_classes(",".join(names))) == names  # longer than any name of a file
    file = tmp_path / "classes.yaml"
    file.write_bytes(b"- cat\n\xff\xfe")
    with pytest.raises(RecipeError) as error:
        suites.parse_classes(str(file))
    assert str(error.value) == f"--classes: {file}: not UTF-8 text, at byte 6"


def test_classes_of_ones_own(tmp_path: Path) -> None:
    assert list(suites.parse_classes("cat, dog,")) == ["cat", "dog"]
    file = tmp_path / "classes.yaml"
    file.write_text("- cat\n- dog\n")
    assert suites.parse_classes(str(file)) == suites.parse_classes("cat,dog")
    file.write_text("cat: [a cat, one cat]\ndog: dog\n")
    chosen = suites.with_default_templates(Card(), suites.parse_classes(str(file)), [])
    # Prompts that were written out stay; a bare name gets CLIP's template.
    assert chosen["cat"].positive == ["a cat", "one cat"]
    assert chosen["dog"].positive == ["a photo of a dog"]
    assert suites.with_default_templates(Card(templates=["a {}!"]), suites.parse_classes("dog"), [])[
        "dog"
    ].positive == ["a dog!"]
    assert suites.with_default_templates(Card(), suites.parse_classes("dog"), ["{}", "my {}"])[
        "dog"
    ].positive == [
        "dog",
        "my dog",
    ]


@pytest.mark.parametrize(
    ("said", "templates", "message"),
    [
        ("none.yaml", [], "--classes: none.yaml does not exist; name a file, or classes as in cat,dog"),
        (",", [], "--classes: classes are a list of names, or a mapping of names to prompts"),
        ("cat", ["a"], '--prompt-template: "a" must hold {} once, where the class name goes'),
    ],
)
def test_wrong_classes_are_named(said: str, templates: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        suites.with_default_templates(Card(), suites.parse_classes(said), templates)
    assert str(error.value) == message


# --- the verb, on tiny towers ---------------------------------------------------------------------------


@pytest.fixture
def others(tmp_path: Path) -> list[Path]:
    return [tiny_clip(tmp_path / f"clip{seed}", seed=seed) for seed in (1, 2)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def asked(recipe: Path, *models: object, **options: object) -> Path:
    page = evaluate_models(
        EvalRequest(models=[str(model) for model in models], recipe=str(recipe), **options)
    )  # type: ignore[arg-type]
    assert page is not None
    return page


def test_three_models_make_one_table(recipe_file: Path, others: list[Path], tmp_path: Path) -> None:
    page = asked(recipe_file, *others, against="base")
    assert page == Path("eval/compare/compare.html")
    file = ComparisonFile.model_validate_json((page.parent / "results_compare.json").read_bytes())
    assert list(file.models) == ["base, clip", "clip1", "clip2"]
    assert file.protocol["split_usage"] == {
        "split": "test",
        "evaluations": 1,
        "adapted_models": 2,
        "prompts": 1,
    }
    assert str(tmp_path) not in page.read_text(encoding="utf-8")
    # The same two models alone say the same of each other, but for the correction over the models.
    two = asked(recipe_file, others[0], against="base", out=tmp_path / "two")
    alone = json.loads((two.parent / "results.json").read_text())
    for one, other in zip(alone["results"], file.results, strict=True):
        assert one["metric"] == other.metric
        assert one["base"] == other.values[0].value.model_dump()
        assert one["adapted"] == other.values[1].value.model_dump()
        differences = [one["difference"], other.values[1].model_dump()["difference"]]
        for key in ("value", "low", "high", "p"):
            assert len({change and change[key] for change in differences}) == 1
    assert alone["protocol"]["split_usage"]["evaluations"] == 2


def test_suite_classes_templates_and_split(recipe_file: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "probes: [zero_shot]\nclasses: [red, green, blue]\ntemplates: ['one {}']\n"
    )
    page = asked(recipe_file, base, suite=str(tmp_path / "mine.yaml"), split="validation")
    (entry,) = json.loads((page.parent / "results.json").read_text())["protocol"]["probes"]
    assert (entry["probe"], entry["dataset"], entry["items"]) == ("zero_shot", "validation", 8)
    assert entry["details"]["prompts"]["red"]["positive"] == ["one red"]
    page = asked(recipe_file, base, classes="red,green", templates=["my {}"])
    entry = json.loads((page.parent / "results.json").read_text())["protocol"]["probes"][0]
    assert entry["details"]["prompts"]["green"]["positive"] == ["my green"]
    page = asked(recipe_file, base, templates=["a {}"])
    entry = json.loads((page.parent / "results.json").read_text())["protocol"]["probes"][0]
    assert sorted(entry["details"]["prompts"]) == ["blue", "green", "red", "white"]
    assert entry["details"]["prompts"]["blue"]["positive"] == ["a blue"]


def test_a_suite_measures_further_sets(recipe_file: Path, base: Path, corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "more")
    columns = "columns: {image: file_name, texts: text, labels: label, group: group_id, split: split}"
    rest = f"{columns}, templates: ['a {{}}'], min_items: 1, privacy: {{identifiers: none}}"
    for split, items in (("test", 16), ("validation", 8), ("all", 64)):
        (tmp_path / "mine.yaml").write_text(
            f"probes: [zero_shot]\nsets:\n  more: {{path: more, split: {split}, {rest}}}\n"
        )
        page = asked(recipe_file, base, suite=str(tmp_path / "mine.yaml"))
        entries = json.loads((page.parent / "results.json").read_text())["protocol"]["probes"]
        assert [(entry["dataset"], entry["items"]) for entry in entries] == [("test", 16), ("more", items)]
    (tmp_path / "mine.yaml").write_text(f"probes: [zero_shot]\nsets: {{test: {{path: more, {rest}}}}}\n")
    with pytest.raises(RecipeError) as error:
        asked(recipe_file, base, suite=str(tmp_path / "mine.yaml"))
    assert str(error.value) == 'sets.test: there is a set "test" already: call it otherwise'


def test_a_benchmark_lists_the_sets_that_are_absent(
    recipe_file: Path, base: Path, corpus: Path, tmp_path: Path
) -> None:
    shutil.copytree(corpus, tmp_path / "more")
    columns = "columns: {image: file_name, texts: text, labels: label, group: group_id, split: split}"
    rest = f"{columns}, templates: ['a {{}}'], min_items: 1, privacy: {{identifiers: none}}, optional: true"
    (tmp_path / "mine.yaml").write_text(
        f"probes: [zero_shot]\nsets:\n  more: {{path: more, {rest}}}\n  gone: {{path: gone, {rest}}}\n"
        "not_included: {PCam: there is no reader for it}\n"
    )
    page = asked(recipe_file, base, suite=str(tmp_path / "mine.yaml"))
    found = json.loads((page.parent / "results.json").read_text())
    assert [entry["dataset"] for entry in found["protocol"]["probes"]] == ["test", "more"]
    lines = [
        "set gone is absent, and not measured: there is nothing at sets.gone.path of the suite",
        "set PCam is not measured: there is no reader for it",
    ]
    assert [line for line in found["warnings"] if line.startswith("set ")] == lines
    assert all(line in page.read_text() for line in lines)
    (tmp_path / "mine.yaml").write_text(
        f"probes: [zero_shot]\nsets: {{gone: {{path: gone, {rest[:-16]}}}}}\n"
    )
    with pytest.raises(DataError, match="gone: no such file"):
        asked(recipe_file, base, suite=str(tmp_path / "mine.yaml"))


def test_the_medical_benchmark_names_sets_by_card_and_requires_none() -> None:
    suite = suites.load("medical_benchmark")
    assert {source.card for source in suite.sets.values()} <= set(builtin.builtin_names("data_cards", ".md"))
    assert all(source.optional for source in suite.sets.values())
    assert len(suite.absent) == len(suite.sets) + len(suite.not_included)


def test_every_measured_set_is_noted(recipe_file: Path, base: Path, corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "more")
    columns = "columns: {image: file_name, texts: text, labels: label, group: group_id, split: split}"
    rest = f"{columns}, templates: ['a {{}}'], min_items: 1, privacy: {{identifiers: none}}"
    (tmp_path / "mine.yaml").write_text(
        f"probes: [zero_shot]\nsets:\n  more: {{path: more, {rest}}}\n  whole: {{path: more, split: all, {rest}}}\n"
    )
    page = asked(recipe_file, base, suite=str(tmp_path / "mine.yaml"))
    lines = [
        json.loads(line)
        for file in (tmp_path / "cache" / "ledgers").iterdir()
        for line in file.read_text().splitlines()
    ]
    # The three sets are one corpus, by its content: its test split was read three times.
    assert [line["split"] for line in lines] == ["test", "test", "all"]
    assert len({line["corpus"] for line in lines}) == 1
    assert (
        json.loads((page.parent / "results.json").read_text())["protocol"]["split_usage"]["evaluations"] == 1
    )
    page = asked(recipe_file, base)
    assert (
        json.loads((page.parent / "results.json").read_text())["protocol"]["split_usage"]["evaluations"] == 2
    )


def test_a_report_that_cannot_be_written_is_said_before_anything_is_measured(
    recipe_file: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from domainclip.pipelines import evaluate

    monkeypatch.setattr(evaluate, "compare_models", lambda *_, **__: pytest.fail("something was measured"))
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError) as error:
        asked(recipe_file, base, out=tmp_path / "file" / "out")
    assert str(error.value) == (
        f"{tmp_path}/file/out: cannot be written: Not a directory: name another with --out"
    )


def test_classes_that_no_item_has_are_refused(recipe_file: Path, base: Path) -> None:
    with pytest.raises(RecipeError) as error:
        asked(recipe_file, base, classes="cat,dog")
    assert str(error.value) == (
        "--classes: no item of test has one of cat, dog: known: blue, green, red, white."
    )


def leaking(corpus: Path, folder: Path) -> Path:
    """The corpus with a group of its training split in its test split as well."""
    shutil.copytree(corpus, folder)
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    first = next(one for one in rows if one["split"] == "train")
    next(one for one in rows if one["split"] == "test")["group_id"] = first["group_id"]
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_a_leak_marks_an_evaluation_invalid_and_stops_a_training(
    recipe_file: Path, others: list[Path], corpus: Path, tmp_path: Path
) -> None:
    from domainclip.config import loading
    from domainclip.pipelines import finetune

    said = [f"corpus.path={leaking(corpus, tmp_path / 'leaking')}"]
    page = asked(recipe_file, *others, overrides=said, out=tmp_path / "out")
    data = json.loads((page.parent / "results.json").read_text())
    assert data["valid"] is False
    assert "group" in data["warnings"][0]
    assert {one["verdict"] for one in data["results"]} == {None}
    text = page.read_text(encoding="utf-8")
    assert "This evaluation is not valid" in text
    assert "a real" not in text
    with pytest.raises(DataError):
        finetune.finetune(
            loading.load_recipe(str(recipe_file), said), RunOptions(folder=tmp_path / "run", quiet=True)
        )
    assert not (tmp_path / "run").exists()


def test_nothing_to_measure_on_is_said(tmp_path: Path, base: Path) -> None:
    with pytest.raises(DomainclipError) as error:
        evaluate_models(EvalRequest(models=[str(base)]))
    assert str(error.value) == f"eval {base}: not a run folder: name what to measure on with --recipe"


def evaluation_only(corpus: Path, folder: Path) -> Path:
    """The test split of a corpus alone."""
    shutil.copytree(corpus, folder)
    table = folder / "metadata.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *(line for line in lines if line.endswith(",test"))]) + "\n")
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["curation={deduplicate: {}, subset: {fraction: 0.5}}"],
        ["curation={cluster_batches: {clusters: 2}}", "train.optimizer=adamw8bit"],
        ["strategy={multi_frame: {frames: 2}}", "curation={balance: {max_per_class: 1}}"],
        ["weight_interpolation={}"],
    ],
)
def test_evaluation_needs_no_training_items_and_nothing_of_training(
    recipe_file: Path, base: Path, corpus: Path, tmp_path: Path, changes: list[str]
) -> None:
    """Curation, optimizer and strategy of the recipe are for training: an evaluation-only corpus is measured."""
    held_out = evaluation_only(corpus, tmp_path / "held")
    page = asked(recipe_file, base, overrides=[f"corpus.path={held_out}", *changes])
    results = json.loads((page.parent / "results.json").read_text())["results"]
    assert results[0]["items"] == 16
    assert np.isfinite(results[0]["base"]["value"])


def test_training_refuses_a_corpus_without_training_items(
    recipe_file: Path, corpus: Path, tmp_path: Path
) -> None:
    from domainclip.config import loading
    from domainclip.pipelines.inputs import load_inputs

    held_out = evaluation_only(corpus, tmp_path / "held")
    recipe = loading.load_recipe(str(recipe_file), [f"corpus.path={held_out}"])
    with pytest.raises(DataError) as error:
        load_inputs(recipe, "train")
    assert str(error.value) == f"corpus {held_out}: no training pair is left"


def test_models_and_recipe_keys_are_told_apart(tmp_path: Path) -> None:
    """A folder whose name holds a = is a model, a path with one as well."""
    (tmp_path / "rate=3").mkdir()
    words = ["runs/a-1", "corpus.path=sky.csv", "rate=3", "runs/b=2", "train={epochs: 1}", "base"]
    assert models_and_overrides(words) == (
        ["runs/a-1", "rate=3", "runs/b=2", "base"],
        ["corpus.path=sky.csv", "train={epochs: 1}"],
    )
    long = f"corpus.classes={{{', '.join(f'class {i}: [a, b]' for i in range(40))}}}"  # no name of a file
    assert models_and_overrides([*words[:1], long]) == (words[:1], [long])
    assert paths_and_overrides(["sky", long]) == (["sky"], [long])
    with pytest.raises(RecipeError) as error:
        models_and_overrides(["corpus.path=x"])
    assert str(error.value) == (
        "eval: name at least one model: a run folder, a checkpoint folder or a Hub id"
    )
