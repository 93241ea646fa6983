"""Errors come before work: what names, paths and headers show costs no import of torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from domainclip.config import builtin, loading
from domainclip.data.cards import load_card
from domainclip.data.files import tables
from domainclip.errors import DataError, DomainclipError, ModelError
from domainclip.pipelines import early_checks

# Each line of a shell, with the exit code and a part of its message.
WRONG = [
    ("finetun", 2, "No such command 'finetun'"),
    ("finetune --recpe x", 2, "No such option: --recpe"),
    ("finetune -r r.yaml train.epchs=3", 2, 'train.epchs: unknown key: did you mean "epochs"?'),
    ("finetune -r r.yaml trian.epochs=3", 2, 'trian: unknown key: did you mean "train"?'),
    ("finetune -r r.yaml train.epochs=many", 2, "train.epochs: input should be a valid number"),
    ("finetune -r r.yaml strategy=loar", 2, 'unknown component "loar": did you mean "lora"?'),
    ("finetune -r r.yaml strategy.lora.rnk=4", 2, 'strategy.lora.rnk: unknown option: did you mean "rank"?'),
    ("finetune -r r.yaml strategy.lora.rank=x", 2, "strategy.lora.rank: input should be a valid integer"),
    ("finetune -r r.yaml objectives=contrstive", 2, 'did you mean "contrastive"?'),
    ("finetune -r r.yaml probes.zero_shot.preset=x", 2, "probes.zero_shot.preset: input should be"),
    ("finetune -r r.yaml corpus.options.separatr=x", 2, 'did you mean "separator"?'),
    ("finetune -r r.yaml corpus.path=/nowhere/a.csv", 3, "/nowhere/a.csv: no such file: check corpus.path"),
    (
        "finetune -r r.yaml corpus.columns.texts=txt",
        3,
        'no column "txt" (corpus.columns.texts): did you mean',
    ),
    ("finetune -r r.yaml base=/nowhere/clip", 4, 'base "/nowhere/clip": no such folder'),
    ("finetune -r nothing.yaml", 2, 'no file or built-in name "nothing.yaml"'),
    ("finetune -r quickstart", 3, "domainclip demo generates it"),
    ("plan -r r.yaml corpus.columns.texts=txt", 3, 'no column "txt"'),
    ("validate -r r.yaml probes.retrieval.x=1", 2, "probes.retrieval.x: unknown option"),
    ("eval nowhere/at/all -r r.yaml", 4, 'base "nowhere/at/all": no such folder'),
    ("data check -r r.yaml corpus.columns.texts=txt", 3, 'no column "txt"'),
    ("data check --card class_folders /nowhere", 3, "/nowhere: no such folder: check corpus.path"),
    ("data prepare out -r r.yaml corpus.path=/nowhere/a.csv", 3, "/nowhere/a.csv: no such file"),
    ("ablate quickstart", 3, "domainclip demo generates it"),
    ("ablate quickstat", 2, 'did you mean "quickstart"?'),
    ("tune -r r.yaml --budget 2x", 2, '--budget: "2x" is not a duration'),
    ("tune -r r.yaml --strategy lorra", 2, 'did you mean "lora"?'),
    ("tune -r r.yaml --metric zero_shot/test/accuracy", 2, "trials are measured on the validation split"),
    ("tune -r r.yaml --metric zeroshot/validation/accuracy", 2, 'did you mean "zero_shot"?'),
    ("tune -r r.yaml train.epohcs=2", 2, 'train.epohcs: unknown key: did you mean "epochs"?'),
    ("tune -r r.yaml corpus.path=/nowhere/a.csv", 3, "/nowhere/a.csv: no such file: check corpus.path"),
    ("merge nowhere other --out merged", 2, "nowhere: no recipe.yaml there: name a run folder"),
    ("merge nowhere --out merged", 2, "merge: name at least two run folders"),
    ("audit nowhere", 2, "nowhere: no recipe.yaml there: name a run folder"),
    ("classify nowhere a.png", 4, "nowhere: no such run or model folder"),
]
# All of them in one process, which prints the modules that none of them may import.
SCRIPT = """
import contextlib, io, json, sys
from domainclip.cli.app import main
assert not {"pydantic", "huggingface_hub", "rich"} & set(sys.modules), "the start of every command is slower"
results = []
for line in json.loads(sys.argv[1]):
    errors, code = io.StringIO(), 0
    try:
        with contextlib.redirect_stderr(errors):
            main(line.split())
    except SystemExit as stop:
        code = int(stop.code or 0)
    heavy = {"torch", "transformers", "datasets", "accelerate", "sklearn", "pandas"} & set(sys.modules)
    results.append([code, errors.getvalue(), sorted(heavy)])
print(json.dumps(results))
"""


def test_no_typing_error_imports_torch(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("base: a/b\ncorpus: {path: t.csv}\nstrategy: lora\n")
    (tmp_path / "t.csv").write_text("image,text\na.png,one\n")
    command = [sys.executable, "-c", SCRIPT, json.dumps([line for line, _, _ in WRONG])]
    environment = {**os.environ, "PYTHONPATH": str(builtin.builtin_folder("recipes").parent)}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    for (line, code, part), (ended, message, heavy) in zip(WRONG, json.loads(run.stdout), strict=True):
        assert (ended, heavy) == (code, []), (line, message)
        assert part in message, line


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "sep.csv", "utf-16.csv"])
def test_columns_are_read_from_the_head(tmp_path: Path, suffix: str) -> None:
    """A wrong column is refused without the rows, one of which would be refused as well."""
    file = tmp_path / f"table.{suffix}"
    header, row = ["image", "cap tion", "größe"], ["a.png", "one", "two"]
    if suffix == "parquet":
        columns = {name: [cell] for name, cell in zip(header, row, strict=True)}
        pyarrow.parquet.write_table(pyarrow.table(columns), file)
    else:
        mark = "\t" if suffix == "tsv" else ";"
        first = "sep=;\n" if suffix == "sep.csv" else ""
        lines = [mark.join(header), *[mark.join(row)] * 20_000, "one cell only"]
        encoding = "utf-16" if suffix == "utf-16.csv" else "utf-8-sig"
        file.write_text(first + "\n".join(lines), encoding=encoding)
    assert tables.peek_columns(file) == header
    card = load_card(None, {"columns": {"texts": ["caption"]}})
    with pytest.raises(DataError, match=r'no column "caption" .*did you mean "cap tion"'):
        early_checks.check_corpus(card, str(file))
    early_checks.check_corpus(load_card(None, {"columns": {"texts": ["cap tion"]}}), str(file))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", '{"image": "a"}'), ("a.csv", '"open'), ("a.csv", ""), ("a.parquet", "no")],
)
def test_a_head_that_shows_no_columns_is_left_to_the_reader(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert tables.peek_columns(tmp_path / name) is None
    early_checks.check_corpus(load_card(None), str(tmp_path / name))


@pytest.mark.parametrize(
    ("path", "card", "message"),
    [
        ("/nowhere", {"reader": "dicom"}, "/nowhere: no such file or folder: check corpus.path"),
        ("/nowhere", {"reader": "hub"}, "/nowhere: no such folder, and not a name that the Hub could have"),
        ("t.parquet", {"reader": "hub"}, "a file, and no data set of save_to_disk: set corpus.reader=table"),
        (".", {"reader": "hub"}, "not a data set of save_to_disk: set corpus.reader=table or =folder"),
        (".", {"reader": "folder", "columns": {"labels": "x"}}, "corpus.columns: a folder has no columns"),
        ("nowhere", {"reader": "prepared"}, "nowhere: no such file or folder"),
    ],
)
def test_each_reader_checks_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, card: dict[str, object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(DomainclipError, match=message.replace(".", r"\.")):
        early_checks.check_corpus(load_card(None, card), path)


def test_names_of_the_hub_and_lists_of_shards_are_not_looked_up() -> None:
    early_checks.check_corpus(load_card(None, {"reader": "hub"}), "owner/data")
    early_checks.check_corpus(load_card(None, {"reader": "webdataset"}), "https://a.b/{0..9}.tar")


def test_the_base_is_checked_after_the_corpus(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,text\na.png,one\n")
    file = tmp_path / "r.yaml"
    file.write_text("base: /nowhere/clip\ncorpus: {path: t.csv}\nstrategy: lora\n")
    with pytest.raises(ModelError, match='base "/nowhere/clip": no such folder'):
        early_checks.check_recipe(loading.load_recipe(str(file)))
    with pytest.raises(DataError, match='no column "txt"'):
        early_checks.check_recipe(loading.load_recipe(str(file), ["corpus.columns.texts=txt"]))
