"""The Python API does what the commands do, and costs nothing to import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import domainclip
from domainclip.cli.app import main
from domainclip.errors import RecipeError


def test_a_run_in_python_equals_the_command(
    recipe_file: Path, tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed, called = tmp_path / "typed", tmp_path / "called"
    changes = ["train.epochs=1"]
    with pytest.raises(SystemExit) as ended:
        main(["finetune", "-q", "-r", str(recipe_file), "--run-dir", str(typed), *changes])
    assert ended.value.code == 0
    report = domainclip.finetune(recipe_file, changes, run_dir=called, quiet=True)
    assert report == called / "report.html"
    first, second = (load_file(run / "model/model.safetensors") for run in (typed, called))
    assert all(torch.equal(first[name], second[name]) for name in first)

    compared = domainclip.evaluate(called, against="base", out=tmp_path / "eval")
    assert compared == tmp_path / "eval/report.html"
    results = json.loads((tmp_path / "eval/results.json").read_text(encoding="utf-8"))
    own = json.loads((called / "results.json").read_text(encoding="utf-8"))
    assert [r["adapted"] for r in results["results"]] == [r["adapted"] for r in own["results"]]

    image = sorted((corpus / "images").glob("*.png"))[0]
    (answer,) = domainclip.load_model(called).classify([image], ["red", "blue"], ["a {} square"])
    assert answer.label in answer.probabilities


def test_a_recipe_can_be_a_value(recipe_file: Path, tmp_path: Path) -> None:
    recipe = domainclip.load_recipe(str(recipe_file), ["train.epochs=1"])
    assert isinstance(recipe, domainclip.Recipe)
    assert domainclip.finetune(recipe, run_dir=tmp_path / "run", quiet=True) is not None
    with pytest.raises(RecipeError, match="holds a run already"):
        domainclip.finetune(recipe, run_dir=tmp_path / "run", quiet=True)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, domainclip; print(sorted({'torch', 'numpy', 'pydantic', 'yaml'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "[]\n"
    assert set(domainclip.__all__) == set(dir(domainclip))
    with pytest.raises(AttributeError, match="no attribute 'finetunes'"):
        domainclip.finetunes  # noqa: B018
