"""The code of a README gives the findings of `classify`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from domainclip.cli.app import app
from domainclip.evaluation import run_classes
from domainclip.evaluation.class_decisions import Decisions
from domainclip.inference.adapted_model import load_model
from domainclip.models import loading
from domainclip.models.saving import save_model
from domainclip.pipelines.export.source import drawn_images
from tests.pipelines.export.conftest import CLASSES


def test_findings(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a run without results, which has no card; each class is a question, one has a threshold."""
    run, out = tmp_path / "run", tmp_path / "out"
    save_model(loading.load_model(base), run / "model")
    image = drawn_images(2)[1]
    decisions = Decisions(thresholds={"effusion": -100.0})
    run_classes.save(run / "model", CLASSES.model_copy(update={"multi_label": True, "decisions": decisions}))
    done = CliRunner().invoke(app, ["export", str(run), "--to", "transformers", "--out", str(out), "-q"])
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{out}\n", "")
    text = (out / "README.md").read_text()
    assert text.startswith(
        "# A CLIP model for transformers\n\n## Use\n\n    pip install transformers torch pillow\n"
    )
    assert "| same side of the threshold | 100.0% |" in text
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    image.save(out / "image.png")
    monkeypatch.chdir(out)
    exec(compile(code, "README.md", "exec"), {})
    lines = [line.split(" ") for line in capsys.readouterr().out.splitlines()]
    expected = load_model(run).find([image])[0]
    assert [(line[0], line[2]) for line in lines] == [("effusion", "present"), ("normal", "")]
    assert [float(line[1]) for line in lines] == pytest.approx(
        [expected["effusion"].score, expected["normal"].score], abs=1e-3
    )
    assert expected["effusion"].present
