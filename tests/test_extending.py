"""The components of docs/internals/extending.md do what the page says, from the working folder of a user."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from domainclip import registry
from tests.objectives.filled_views import check_gradients, check_processes, filled

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "internals" / "extending.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```\w+\n# (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
EXAMPLES = {
    "strategies": "bias_only:BiasOnly",
    "objectives": "hardest_negative:HardestNegative",
    "curation": "min_words:MinWords",
    "probes": "pair_cosine:PairCosine",
    "readers": "pairs_json:PairsJson",
}


@pytest.fixture
def folder(tmp_path: Path, base: Path, corpus: Path) -> Path:
    """The working folder of a user: the files of the page, a base, and a corpus as JSON."""
    for name, text in BLOCKS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    shutil.copytree(base, tmp_path / "base")
    shutil.copytree(corpus / "images", tmp_path / "corpus" / "images")
    with (corpus / "metadata.csv").open(newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    (tmp_path / "corpus" / "pairs.json").write_text(json.dumps(rows), encoding="utf-8")
    return tmp_path


def _module(folder: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


_COMMANDS = """
import contextlib, io, json, sys
from domainclip.cli.app import main

for arguments in json.loads(sys.argv[1]):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


@pytest.fixture
def commands(folder: Path) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of three commands, by one process that has no working folder on its path.

    Like the console script; that they share one saves the seconds in which each loads its libraries.
    """
    (folder / "loose.py").write_text(BLOCKS["bias_only.py"].replace("(Strategy)", ""), encoding="utf-8")
    changes = ["train.epochs=1", "train.batch_size=16", "evaluate.bootstrap_samples=100"]
    recipe = ["--recipe", "recipe.yaml"]
    asked = [
        ["validate", *recipe],
        ["finetune", *recipe, 'strategy={"loose:BiasOnly": {}}'],
        ["finetune", *recipe, "--run-dir", "run", *changes],
    ]
    done = subprocess.run(
        [sys.executable, "-P", "-c", _COMMANDS, json.dumps(asked)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "DOMAINCLIP_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_page_has_a_component_of_each_kind() -> None:
    assert EXAMPLES.keys() == set(registry.KINDS)
    assert BLOCKS.keys() == {f"{name.split(':')[0]}.py" for name in EXAMPLES.values()} | {"recipe.yaml"}
    for name in EXAMPLES.values():
        assert f'"{name}"' in BLOCKS["recipe.yaml"]


@pytest.mark.parametrize(("kind", "base_class"), registry.BASE_CLASSES.items())
def test_the_page_names_every_member_of_a_base_class(kind: str, base_class: str) -> None:
    module, _, name = base_class.rpartition(".")
    members = vars(getattr(importlib.import_module(module), name)).keys()
    public = {member for member in members if not member.startswith("_")} | {"citation", "models"}
    assert public, kind
    assert {member for member in public if f"`{member}`" not in PAGE} == set()


def test_the_objective_of_the_page_is_exact(folder: Path) -> None:
    objective = _module(folder, "hardest_negative").HardestNegative(margin=0.5)
    for grouped in (True, False):
        check_processes(objective, filled(grouped=grouped))
    check_gradients(objective, filled(b=5, d=3))
    views = filled(grouped=False)
    similarity = views.image @ views.text.T
    wrong = similarity.masked_fill(torch.eye(8, dtype=torch.bool), -1)
    sides = [(0.5 - similarity.diagonal() + wrong.amax(dim)).clamp_min(0).mean() for dim in (1, 0)]
    assert torch.allclose(objective(views), sides[0] + sides[1])


def test_the_recipe_of_the_page_runs(folder: Path, commands: list[tuple[int, str, str]]) -> None:
    validated, refused, (code, out, err) = commands
    assert validated[:2] == [0, "recipe.yaml: valid\n"]
    assert code == 0, out + err
    results = json.loads((folder / "run" / "results.json").read_text(encoding="utf-8"))
    assert "pair_cosine" in {row["metric"] for row in results["results"]}
    report = (folder / "run" / "report.html").read_text(encoding="utf-8")
    for source in ("2106.10199", "1707.05612", "2104.08718"):
        assert source in report
    records = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert "hardest_negative:HardestNegative" in records[0]["terms"]
    # A class without the base class is refused before anything is read.
    assert refused[0] == 2
    assert (
        'strategies: "loose:BiasOnly" does not inherit domainclip.strategies.base.Strategy: make that its base class'
        in " ".join(refused[2].split())
    )
