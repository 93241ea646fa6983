"""Recipes: every key checked, downloaded ones confined, and the resolved one gives the same run."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from domainclip import components
from domainclip.config import loading
from domainclip.config.training import TrainConfig
from domainclip.data.cards import load_card
from domainclip.errors import RecipeError

TEXT = """
base: lab/base
corpus: {card: general, path: data}
strategy: lora
objectives: {contrastive: , anchor: {weight: 10}}
train: {epochs: 3, learning_rate: 1e-4}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.yaml").write_text(TEXT)
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_short_forms_defaults_and_numbers(folder: Path) -> None:
    read = loading.load_recipe("mine.yaml")
    assert read.name == "mine"
    assert read.base.path == "lab/base"
    assert read.strategy == {"lora": {}}
    assert read.train.learning_rate == 1e-4
    assert read.corpus.path == str(folder / "data")
    built = components.build_components(read)
    assert [(name, weight) for name, (weight, _) in built.objectives.items()] == [
        ("contrastive", 1.0),
        ("anchor", 10.0),
    ]


def test_overrides(folder: Path) -> None:
    read = loading.load_recipe(
        "mine.yaml",
        ["strategy.lora.rank=4", "train.epochs=1.5", "base.revision=abc", "corpus.max_unusable=0.2"],
    )
    assert read.strategy == {"lora": {"rank": 4}}
    assert read.train.epochs == 1.5
    assert (read.base.path, read.base.revision) == ("lab/base", "abc")
    assert read.corpus.overrides() == {"max_unusable": 0.2}
    assert loading.load_recipe("mine.yaml", ["strategy=locked_image"]).strategy == {"locked_image": {}}


def test_the_resolved_recipe_is_the_same_recipe(folder: Path) -> None:
    read = loading.load_recipe("mine.yaml", ["train.seed=7", f"corpus.path={folder / 'data'}"])
    (folder / "again.yaml").write_text(read.resolved())
    again = loading.load_recipe("again.yaml")
    assert again == read
    assert again.digest() == read.digest()
    assert loading.load_recipe("mine.yaml", ["train.seed=8"]).digest() != read.digest()
    assert (
        loading.load_recipe("mine.yaml", ["train.seed=7", "evaluate.bootstrap_samples=100"]).digest()
        == read.digest()
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.epoch=3"], 'mine.yaml: train.epoch: unknown key: did you mean "epochs"?'),
        (["trian.epochs=3"], 'mine.yaml: trian: unknown key: did you mean "train"?'),
        (
            ["train.epochs=many"],
            "mine.yaml: train.epochs: input should be a valid number, unable to parse string as a number or 'auto', got 'many'",
        ),
        (["train.epochs=0"], "mine.yaml: train.epochs: input should be greater than 0 or 'auto', got 0"),
        (
            ["train.save_every=[1]"],
            "mine.yaml: train.save_every: input should be a valid integer or a valid string, got [1]",
        ),
        (["strategy=[lora, full]"], "mine.yaml: strategy: name exactly one strategy, not 2"),
        (
            ["weight_interpolation.alphas=[0, 1]"],
            "mine.yaml: weight_interpolation.alphas: each alpha must be above 0 (the base model) and at most 1 (the adapted model)",
        ),
        (["train.epochs"], 'override "train.epochs": write it as key=value, as in train.epochs=3'),
        (["train epochs=3"], 'override "train epochs=3": write it as key=value, as in train.epochs=3'),
    ],
)
def test_wrong_overrides(folder: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        loading.load_recipe("mine.yaml", overrides)
    assert str(caught.value) == message


def test_wrong_parts_fail_before_anything_is_loaded(folder: Path) -> None:
    for weight, said in (("much", "'much'"), ("true", "True"), ("-1", "-1"), ("-0.5", "-0.5")):
        with pytest.raises(RecipeError) as caught:
            components.build_components(
                loading.load_recipe("mine.yaml", [f"objectives.contrastive.weight={weight}"])
            )
        assert str(caught.value) == f"objectives.contrastive.weight: must be a number, 0 or more, got {said}"
    with pytest.raises(RecipeError) as caught:
        components.build_components(loading.load_recipe("mine.yaml", ["strategy.lora.alhpa=3"]))
    assert str(caught.value) == 'strategy.lora.alhpa: unknown option: did you mean "alpha"?'


def test_unknown_recipe(folder: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        loading.load_recipe("medical_xrays")
    assert (
        str(caught.value) == 'recipes: no file or built-in name "medical_xrays": did you mean "medical_xray"?'
    )


@pytest.mark.parametrize("path", ["/etc", "../elsewhere", "link"])
def test_paths_of_a_downloaded_recipe_are_confined_and_those_of_a_users_recipe_are_not(
    folder: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 32."""
    (folder / "link").symlink_to("/etc")
    target = (folder / path).resolve()
    recipe = folder / "model" / "foreign.yaml"
    recipe.parent.mkdir()
    recipe.write_text(TEXT.replace("path: data", f"path: {path}"))
    assert loading.load_recipe(str(recipe)).corpus.path == str(target)
    record = folder / "model/.cache/huggingface/download/foreign.yaml.metadata"
    record.parent.mkdir(parents=True)
    record.touch()
    message = (
        f"foreign.yaml: corpus.path: {target} lies outside the working folder and the folder of this file, which "
        "was downloaded: name the path on the command line, or copy the file"
    )
    with pytest.raises(RecipeError) as caught:
        loading.load_recipe(str(recipe))
    assert str(caught.value) == message
    assert loading.load_recipe(str(recipe), [f"corpus.path={path}"]).corpus.path == str(target)
    record.unlink()
    monkeypatch.setenv("HF_HOME", str(folder / "model"))
    with pytest.raises(RecipeError) as caught:
        loading.load_recipe(str(recipe))
    assert str(caught.value) == message


def test_models_that_a_downloaded_recipe_names_are_confined(folder: Path) -> None:
    inner = "{matryoshka: {widths: [8], objective: {distillation: {teachers: [/elsewhere/clip]}}}}"
    for objectives, where in (
        ("{distillation: {teachers: [/elsewhere/clip]}}", "objectives.distillation.teachers"),
        (inner, "objectives.matryoshka.objective.distillation.teachers"),
    ):
        (folder / "there.yaml").write_text(TEXT.replace("{contrastive: , anchor: {weight: 10}}", objectives))
        record = folder / ".cache/huggingface/download/there.yaml.metadata"
        record.unlink(missing_ok=True)
        loading.load_recipe("there.yaml")
        record.parent.mkdir(parents=True, exist_ok=True)
        record.touch()
        with pytest.raises(RecipeError, match=f"^there.yaml: {where}: /elsewhere/clip lies outside"):
            loading.load_recipe("there.yaml")
        loading.load_recipe("there.yaml", [f"objectives={objectives}"])


def test_a_table_of_reports_is_looked_up_where_the_recipe_lies(folder: Path) -> None:
    (folder / "recipes").mkdir()
    recipe = folder / "recipes" / "mine.yaml"
    recipe.write_text(TEXT.replace("path: data", "path: data, options: {reports: reports.csv}"))
    table = folder / "recipes" / "reports.csv"
    assert loading.load_recipe(str(recipe)).corpus.overrides()["options"] == {"reports": "reports.csv"}
    table.touch()
    assert loading.load_recipe(str(recipe)).corpus.overrides()["options"] == {"reports": str(table)}
    (folder / "data" / "reports.csv").touch()  # the corpus folder comes first
    assert loading.load_recipe(str(recipe)).corpus.overrides()["options"] == {"reports": "reports.csv"}


def test_a_downloaded_recipe_or_card_reads_no_table_outside_the_corpus(folder: Path) -> None:
    records = folder / ".cache/huggingface/download"
    records.mkdir(parents=True)
    for name in ("mine.yaml", "card.md"):
        (records / f"{name}.metadata").touch()
    (folder / "mine.yaml").write_text(TEXT.replace("path: data", "path: data, options: {reports: ../x.csv}"))
    (folder / "card.md").write_text("---\ndomainclip: {options: {reports: /etc/x.csv}}\n---\n")
    with pytest.raises(
        RecipeError, match=r"^mine.yaml: corpus.options.reports: lies outside the corpus folder"
    ):
        loading.load_recipe("mine.yaml")
    loading.load_recipe("mine.yaml", ["corpus.options.reports=../x.csv"])
    with pytest.raises(RecipeError, match=r"^card.md: options.reports: lies outside the corpus folder"):
        load_card("card.md")


def test_a_tilde_is_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    path = loading.load_recipe("mine.yaml", ["corpus.path=~/data", "base=~/nothing/clip"])
    assert (path.corpus.path, path.base.path) == (str(folder / "data"), str(folder / "nothing/clip"))


def test_not_a_recipe(folder: Path) -> None:
    (folder / "list.yaml").write_text("- a\n- b\n")
    with pytest.raises(RecipeError) as caught:
        loading.load_recipe("list.yaml")
    assert str(caught.value) == "list.yaml: a recipe is a mapping of keys to values"
    (folder / "latin.yaml").write_bytes("name: caf\xe9".encode("latin-1"))
    with pytest.raises(RecipeError) as caught:
        loading.load_recipe("latin.yaml")
    assert str(caught.value) == "latin.yaml: not UTF-8 text, at byte 9"


def test_schema_names_every_part() -> None:
    pytest.importorskip("domainclip.models")
    definitions = loading.schema()["$defs"]
    assert {"strategies.lora", "objectives.contrastive", "probes.zero_shot"} <= set(definitions)
    assert definitions["strategies.lora"]["properties"]["rank"]["type"] == "integer"
    assert definitions["objectives.anchor"]["properties"]["weight"]["default"] == 1.0


def test_a_section_that_is_no_mapping(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        loading.load_recipe("quickstart", ["train=3"])
    assert str(caught.value) == "quickstart.yaml: train: input should be a mapping, got 3"


@pytest.mark.parametrize(
    "change", ["base.revision='12e4567'", "report.title='1e5'", "objectives.three_towers.third_tower=./tower"]
)
def test_the_resolved_recipe_keeps_texts_that_could_be_numbers(folder: Path, change: str) -> None:
    read = loading.load_recipe("mine.yaml", [change])
    (folder / "again.yaml").write_text(read.resolved())
    assert loading.load_recipe("again.yaml") == read


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("objectives.distillation.teachers=42", "objectives.distillation.teachers: input should be a valid "),
        (
            "objectives.distillation.teachers=[1]",
            "objectives.distillation.teachers.0: input should be a valid string",
        ),
        (
            "objectives.three_towers.third_tower=true",
            "objectives.three_towers.third_tower: input should be a valid string",
        ),
        ("objectives.matryoshka.objective={contrastive: 5}", "objectives.matryoshka"),
    ],
)
def test_a_model_of_another_type_than_text(folder: Path, change: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        components.build_components(loading.load_recipe("mine.yaml", [change]))
    assert str(caught.value).startswith(message)


def test_the_margin_of_a_retention_set_that_the_card_names(folder: Path) -> None:
    recipe = loading.load_recipe("mine.yaml", ["retention.margin=0.02"])
    assert recipe.retention is not None
    assert (recipe.retention.margin, recipe.retention.path, recipe.retention.overrides()) == (0.02, "", {})
    alone = loading.load_recipe("mine.yaml", [])
    # The margin is one of the report: the trained weights do not depend on it.
    changes = ["retention.margin=0.05", "train.on_retention_drop=stop", "train.validate_every=5"]
    steered = loading.load_recipe("mine.yaml", changes)
    assert "margin" not in steered.identity()["retention"]
    assert "retention" not in recipe.identity()
    assert recipe.identity() == alone.identity()


@pytest.mark.parametrize("margin", ["0", "1", "-0.02", "two points"])
def test_a_margin_that_is_no_share(folder: Path, margin: str) -> None:
    with pytest.raises(RecipeError, match=r"retention\.margin"):
        loading.load_recipe("mine.yaml", [f"retention.margin={margin}"])


def test_a_retention_card_without_a_path(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"retention.*path is missing: name the folder"):
        loading.load_recipe("mine.yaml", ["retention.card=general"])


@pytest.mark.parametrize(
    ("pairs", "batch", "epochs"),
    # 1,280 pairs are 10 steps of 128, so ten passes make 100; 60 pairs are less than one batch, so the most
    # passes; a million pairs are seen once; 200 pairs in batches of 16 are 12.5 steps.
    [(1280, 128, 10), (60, 128, 20), (1_000_000, 128, 1), (200, 16, 8), (12800, 128, 1), (12799, 128, 2)],
)
def test_epochs_auto_makes_enough_steps(pairs: int, batch: int, epochs: int) -> None:
    settings = TrainConfig(epochs="auto", batch_size=batch)
    assert settings.epochs_of(pairs) == epochs
    assert TrainConfig(epochs=2.5).epochs_of(pairs) == 2.5


def test_patience_needs_validations() -> None:
    with pytest.raises(ValidationError, match="patience: 3 needs validate_every"):
        TrainConfig(patience=3)
