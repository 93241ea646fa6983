"""The command line: what a person sees, whole texts and exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pydicom.data
import pytest

from domainclip.cli.app import main
from domainclip.config import builtin
from tests.conftest import make_corpus

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process: its exit code, output and errors."""

    def go(*arguments: object) -> tuple[int, str, str]:
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return go


@pytest.fixture
def finetune(run: Run, recipe_file: Path, tmp_path: Path) -> Run:
    return lambda *more: run("finetune", "-q", "-r", recipe_file, "--run-dir", tmp_path / "run", *more)


@pytest.mark.parametrize(
    ("override", "code", "line"),
    [
        ("train.epoch=3", 2, 'squares.yaml: train.epoch: unknown key: did you mean "epochs"?'),
        ("strategy=loar", 2, 'strategies: unknown component "loar": did you mean "lora"?'),
        ("corpus.columns.txts=a", 2, 'corpus: columns.txts: unknown key: did you mean "texts"?'),
        (
            "corpus.columns.texts=txt",
            3,
            'metadata.csv: no column "txt" (corpus.columns.texts): did you mean "text"? '
            "there are: file_name, text, label, group_id, split.",
        ),
        ("corpus.path=/nowhere/a.csv", 3, "/nowhere/a.csv: no such file: check corpus.path"),
        (
            "base=/nowhere/clip",
            4,
            'base "/nowhere/clip": no such folder, and not a name that the Hub could have',
        ),
        (
            "corpus.options.delimiter=;",
            2,
            "corpus.options.delimiter: unknown option: known: encoding, image_folder, label_separator, labels_where, quoting, separator, texts_where, where.",
        ),
        (
            "strategy.full.image_lr_factor=0 strategy.full.text_lr_factor=0 strategy.full.train_logit_scale=false",
            2,
            "strategy.full: with these options no weight learns",
        ),
        ("name=../up", 2, "squares.yaml: name: must be a name, not a path: the run folder is named after it"),
        (
            "anchor_texts.templates=[]",
            2,
            "squares.yaml: anchor_texts.templates: list should have at least 1 item after validation, not 0, got []",
        ),
        ("train.betas=[0.9,1.5]", 2, "squares.yaml: train.betas.1: input should be less than 1, got 1.5"),
        ("retention.path=/nowhere", 3, "retention.path: /nowhere does not exist"),
        (
            "report.examples=true corpus.privacy.burned_in_text=unknown",
            2,
            "report.examples: card unnamed says identifiers none, burned-in text unknown: inspect the "
            "images and set both keys under privacy, or leave examples out",
        ),
    ],
)
def test_one_clear_line(finetune: Run, override: str, code: int, line: str) -> None:
    assert finetune(*override.split()) == (code, "", f"domainclip: {line}\n")


def test_interpolation_without_a_validation_split(finetune: Run, tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "corpus")
    table = folder / "metadata.csv"
    table.write_text(table.read_text().replace(",val", ",train"))
    assert finetune(f"corpus.path={folder}", "weight_interpolation={}") == (
        3,
        "",
        "domainclip: corpus unnamed: the validation split is empty: weight_interpolation chooses on it; leave weight_interpolation "
        "out\n",
    )
    assert not (tmp_path / "run/metrics.jsonl").exists()  # said before training, not after


def test_a_run_folder_that_cannot_be(run: Run, recipe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, error = run("finetune", "-q", "-r", recipe_file, "--run-dir", tmp_path / "file")
    assert (code, error) == (
        2,
        f"domainclip: {tmp_path / 'file'}: cannot be written: File exists: name another folder\n",
    )


def test_a_run_goes_on_from_any_folder(
    run: Run, recipe_file: Path, tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recipe, card and corpus lie together, the run elsewhere: nothing is lost when it is resumed or measured."""
    home = tmp_path / "project"
    make_corpus(home / "data")
    front = "domainclip: {templates: ['a {} square'], min_items: 1}"
    (home / "squares.md").write_text(f"---\n{front}\n---\nSquares.\n")
    base = recipe_file.read_text().splitlines()[1]
    rest = "strategy: full\ntrain: {epochs: 1, batch_size: 16}\nevaluate: {bootstrap_samples: 100}"
    (home / "r.yaml").write_text(f"{base}\ncorpus: {{path: data, card: squares.md}}\n{rest}\n")
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run("finetune", "-q", "-r", home / "r.yaml", "--run-dir", "run")[0] == 0
    monkeypatch.chdir(tmp_path / "there")
    folder = Path("../here/run")
    assert run("finetune", "-q", "--resume", "--run-dir", folder) == (0, f"{folder / 'report.html'}\n", "")
    assert run("eval", folder)[0] == 0
    assert str(tmp_path) not in (tmp_path / "here/run/README.md").read_text()


def test_an_empty_caption(finetune: Run, tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "corpus")
    table = folder / "metadata.csv"
    table.write_text(table.read_text().replace("a blue square 8,", " ,", 1))
    listed = Path.home() / ".cache/domainclip/unusable-unnamed.tsv"
    assert finetune(f"corpus.path={folder}") == (
        3,
        "",
        "domainclip: corpus unnamed: 1 of 64 items are unusable (1.6%, limit 1.0%): 1 empty caption; first: row 1 "
        f"000.png (empty caption); repair them or raise corpus.max_unusable to 0.016 (list: {listed})\n",
    )
    # Allowed, it is counted and said.
    assert finetune(f"corpus.path={folder}", "corpus.max_unusable=0.02")[0] == 0
    assert json.loads((tmp_path / "run/results.json").read_text())["corpus"]["quarantine"] == {
        "empty caption": 1
    }


def test_a_truncated_picture(finetune: Run, tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "corpus")
    whole = (folder / "images/000.png").read_bytes()
    (folder / "images/000.png").write_bytes(whole[: len(whole) // 2])
    code, out, error = finetune(f"corpus.path={folder}")
    assert (code, out) == (3, "")
    assert error == (
        "domainclip: corpus: 1 of 64 images cannot be read (1.6%, limit 1.0%): 1 truncated image; first: row 1 "
        "(truncated image); repair them or raise corpus.max_unusable to 0.016\n"
    )


def test_a_dicom_file_that_is_no_picture(finetune: Run, tmp_path: Path) -> None:
    folder = tmp_path / "dicom"
    folder.mkdir()
    names = [f"{number:02d}.dcm" for number in range(12)]
    for name in names:
        shutil.copy(pydicom.data.get_testdata_file("CT_small.dcm"), folder / name)
    shutil.copy(pydicom.data.get_testdata_file("rtplan.dcm"), folder / "plan.dcm")
    rows = [f"{name},scan {name},{name}" for name in [*names, "plan.dcm"]]
    (folder / "metadata.csv").write_text("\n".join(["file_name,text,patient", *rows]))
    arguments = [f"corpus.path={folder}", "corpus.reader=dicom", "corpus.columns={group: patient}"]
    listed = Path.home() / ".cache/domainclip/unusable-unnamed.tsv"
    assert finetune(*arguments) == (
        3,
        "",
        "domainclip: corpus unnamed: 1 of 13 items are unusable (7.7%, limit 1.0%): 1 not an image (RTPLAN); first: "
        f"row 13 plan.dcm (not an image (RTPLAN)); repair them or raise corpus.max_unusable to 0.077 (list: {listed})\n",
    )


def test_a_patient_in_two_splits(finetune: Run, tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "corpus")
    table = folder / "metadata.csv"
    table.write_text(table.read_text().replace(",g0,train", ",g31,train", 1))
    assert finetune(f"corpus.path={folder}") == (
        3,
        "",
        "domainclip: corpus: patient-level leak: 1 group is in more than one split (1 in train and test); one of "
        'them: row 1, row 63, row 64; mend the split column, or set corpus.columns.split="" to split by group\n',
    )


def test_no_recipe_and_no_run(run: Run, tmp_path: Path) -> None:
    assert run("finetune") == (
        2,
        "",
        "domainclip: finetune: name a recipe with --recipe; domainclip recipes list shows the built-in ones\n",
    )
    assert run("finetune", "--resume") == (
        2,
        "",
        "domainclip: --resume: name the run to continue with --run-dir RUN\n",
    )
    assert run("finetune", "--resume", "--run-dir", tmp_path) == (
        2,
        "",
        f"domainclip: --resume: no run has begun in {tmp_path}: leave --resume out to begin it\n",
    )
    assert run("eval", tmp_path) == (
        2,
        "",
        f"domainclip: eval {tmp_path}: not a run folder: name what to measure on with --recipe\n",
    )


def test_no_processes_are_none_and_not_one(finetune: Run) -> None:
    code, _, err = finetune("--processes", "0")
    assert (code, "Invalid value for '--processes'" in err) == (2, True)


def test_a_dry_run_is_said_once(finetune: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from domainclip.distributed import launch

    monkeypatch.setattr(launch, "launch", lambda *_: pytest.fail("several processes would each say it"))
    code, out, _ = finetune("--dry-run", "--processes", "2")
    assert (code, out.count("schedule")) == (0, 1)


def test_a_full_disk_leaves_the_recipe_of_a_run_that_is_resumed(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut short, it would be no recipe: neither to continue, nor to begin anew."""
    from domainclip.config import loading
    from domainclip.errors import RecipeError
    from domainclip.pipelines import run_folder

    read = loading.load_recipe(str(recipe_file))
    run_folder.write_recipe(tmp_path, read)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RecipeError):
        run_folder.write_recipe(tmp_path, read.model_copy(update={"name": "other"}))
    assert loading.load_recipe(str(tmp_path / "recipe.yaml")).name == "squares"


def test_a_run_folder_is_not_written_over(finetune: Run, tmp_path: Path) -> None:
    assert finetune()[0] == 0
    assert finetune() == (
        2,
        "",
        f"domainclip: {tmp_path / 'run'}: holds a run already; continue it with --resume or name another --run-dir\n",
    )


def test_finetune_eval_export_and_dry_push(finetune: Run, run: Run, tmp_path: Path, base: Path) -> None:
    folder = tmp_path / "run"
    code, out, error = finetune("strategy.lora.rank=2", "strategy={lora: {rank: 2}}")
    assert (code, out, error) == (0, f"{folder / 'report.html'}\n", "")
    first = json.loads((folder / "results.json").read_text())
    code, out, error = run("eval", folder, "--against", "base", "--out", tmp_path / "eval")
    assert (code, out) == (0, f"{tmp_path / 'eval' / 'report.html'}\n")
    assert "In the domain" in error
    assert f"Try it: domainclip classify {folder} " in error
    again = json.loads((tmp_path / "eval/results.json").read_text())
    assert again["results"] == first["results"]  # the saved adapter says exactly what the trained towers said
    code, out, error = run(
        "eval", base, "--recipe", folder / "recipe.yaml", "--out", tmp_path / "alone", "-q", "--json"
    )
    assert (code, out) == (0, (tmp_path / "alone/results.json").read_text())
    alone = json.loads(out)["results"]
    assert [row["base"] for row in alone] == [row["base"] for row in first["results"]]
    assert {row["adapted"] for row in alone} == {None}
    recorded = json.loads((folder / "model/classes.json").read_text())
    assert recorded["classes"].keys() == {"blue", "green", "red", "white"}
    code, out, error = run("export", folder, "--to", "transformers", "--out", tmp_path / "plain", "--json")
    assert code == 0, error
    assert (tmp_path / "plain/classes.json").read_text() == (folder / "model/classes.json").read_text()
    exported = json.loads(out)
    assert exported == {
        "out": str(tmp_path / "plain"),
        **json.loads((tmp_path / "plain/export.json").read_text()),
    }
    check = exported["check"]
    assert 0 < check["largest_difference"] <= 1e-5
    assert (check["items"], check["items_of"], check["same_class"]) == (8, "validation split of the run", 1.0)
    assert {one["metric"] for one in check["metrics"]} >= {"accuracy", "image_to_text_r1"}
    assert all(one["run"] == pytest.approx(one["exported"], abs=1e-6) for one in check["metrics"])


def test_plan_and_dry_run(run: Run, recipe_file: Path, tmp_path: Path) -> None:
    code, out, _ = run("plan", "-r", recipe_file)
    assert code == 0
    lines = dict(line.split("  ", 1) for line in out.splitlines() if not line.startswith("warning"))
    assert lines["corpus"].strip() == "40 train, 8 validation, 16 test"
    assert lines["schedule"].strip() == "8 steps of 16 pairs, 3 epochs, peak rate 0.001"
    assert "weights learn (100.0%)" in lines["learns"]
    assert lines["memory"].strip().startswith("about 0.0")
    assert "pairs/s here" in lines["speed"]
    code, dry, _ = run("finetune", "-r", recipe_file, "--dry-run", "--run-dir", tmp_path / "run")
    assert code == 0
    assert dry.splitlines() == [line for line in out.splitlines() if not line.startswith("speed")]
    assert not (tmp_path / "run").exists()


def test_recipes_ls_show_cp_validate_schema(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("recipes", "list")
    out, _, plans = out.partition("\nAblation plans: ")
    assert plans.startswith("domainclip ablate NAME; domainclip recipes show ablations/NAME\nplan ")
    assert "\nmedical_xray " in plans
    assert run("recipes", "show", "ablations/quickstart")[1].startswith("# The effect of each component")
    heading, *lines = out.splitlines()
    assert heading.split() == ["recipe", "purpose"]
    names = [line.split()[0] for line in lines]
    assert code == 0
    assert names == builtin.builtin_names("recipes", ".yaml")
    assert len({line.index(line.split(None, 1)[1]) for line in lines}) == 1  # one under the other
    assert {"quickstart", "medical_xray", "astronomy", "art_paintings", "multilingual"} <= set(names)
    assert run("validate", "-r", "astronomy", "corpus.options.wher=1")[0] == 2
    for name in names:
        assert run("validate", "-r", name) == (0, f"{name}: valid\n", "")
    text = builtin.find_file("recipes", "astronomy", ".yaml").read_text()
    assert run("recipes", "show", "astronomy.yaml") == (0, text, "")
    assert run("recipes", "copy", "astronomy", tmp_path) == (0, f"{tmp_path / 'astronomy.yaml'}\n", "")
    assert (tmp_path / "astronomy.yaml").read_text() == text
    assert run("recipes", "copy", "astronomy", tmp_path) == (
        2,
        "",
        f"domainclip: {tmp_path / 'astronomy.yaml'}: exists already; name another file\n",
    )
    code, out, _ = run("schema")
    assert code == 0
    assert json.loads(out)["title"] == "Recipe"


@pytest.mark.parametrize("name", builtin.builtin_names("recipes", ".yaml"))
def test_the_first_lines_of_a_recipe_say_command_and_hardware(name: str) -> None:
    head = builtin.find_file("recipes", name, ".yaml").read_text().splitlines()[:6]
    assert all(line.startswith("#") for line in head[:3])
    said = " ".join(head)
    assert "domainclip finetune --recipe" in said or "domainclip demo" in said
    assert "minutes" in said


VERBS = ["finetune", "eval", "plan", "validate", "schema", "export", "push", "demo"]


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(run: Run, verb: str) -> None:
    code, out, _ = run(verb, "--help")
    assert code == 0
    assert f"domainclip {verb}" in out


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from domainclip.cli.app import main\ntry: main(['recipes', 'list'])\nexcept SystemExit: pass\nprint([m for m in ('torch', 'transformers', 'datasets', 'numpy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


_WITHOUT = """
import sys, warnings
warnings.simplefilter("error")

# The idiom for "not installed": an import fails, and a search finds no module.
sys.modules["torchvision"] = sys.modules["sentencepiece"] = None
from PIL import Image
from domainclip.models.loading import load_model
from tests.support.tiny_models import stack
model = load_model(sys.argv[1])
pixels = stack([model.image_preprocessor(Image.new("RGB", (50, 40)))])
image, text, *_ = model(pixels, model.text_tokenizer(["a cat"]))
print(tuple(image.shape), tuple(text.shape))
print("the run", file=sys.stderr)
warnings.resetwarnings()
from domainclip.cli.app import main
main(["finetune", "-q", "-r", sys.argv[2], "--run-dir", sys.argv[3]])
"""


def test_models_and_the_main_job_without_torchvision(recipe_file: Path, tmp_path: Path, base: Path) -> None:
    """In one process, which is a start of half a minute saved: a model without a word, then a whole run."""
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, str(base), str(recipe_file), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"(1, 16) (1, 16)\n{tmp_path}/run/report.html\n"
    assert done.stderr.startswith("the run\n")
    assert (tmp_path / "run/report.html").is_file()


def test_a_run_folder_that_another_command_uses(
    finetune: Run, run: Run, recipe_file: Path, tmp_path: Path, base: Path
) -> None:
    """The commands that write it and those that read it are refused before they load anything."""
    from domainclip.config import loading
    from domainclip.distributed.folder_lock import locked_folder

    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(loading.load_recipe(str(recipe_file)).resolved())
    line = f"domainclip: {folder}: in use by process {os.getpid()} on {os.uname().nodename}: wait until that has ended, or end it\n"
    with locked_folder(folder):
        assert finetune("--resume") == (2, "", line)
        assert finetune() == (2, "", line)
        assert run("eval", folder) == (2, "", line)
        assert run("eval", folder, "--out", tmp_path / "other") == (2, "", line)
        assert run("eval", base, "--against", folder, "--recipe", recipe_file) == (2, "", line)
        assert run("export", folder, "--to", "transformers", "--out", tmp_path / "plain") == (2, "", line)
        assert run("push", folder, "--repo-id", "lab/x", "--dry-run") == (2, "", line)
    assert not (tmp_path / "other").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["model", "recipe.yaml"]


def test_two_ablations_in_one_folder(run: Run, recipe_file: Path, tmp_path: Path) -> None:
    from domainclip.distributed.folder_lock import locked_folder

    (tmp_path / "plan.yaml").write_text(f"recipe: {recipe_file}\nvariants: {{a: []}}\n")
    with locked_folder(tmp_path / "table"):
        code, out, error = run("ablate", tmp_path / "plan.yaml", "--run-dir", tmp_path / "table")
    assert (code, out) == (2, "")
    assert error.startswith(f"domainclip: {tmp_path / 'table'}: in use by process {os.getpid()} on ")
