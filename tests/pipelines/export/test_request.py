"""Wrong options of `export` are refused before a library is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from domainclip.errors import ModelError, RecipeError
from domainclip.pipelines.export import request
from domainclip.pipelines.export.request import make_request


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run/model").mkdir(parents=True)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("to", "precision", "message"),
    [
        ("openclip", "fp32", '--to: unknown form "openclip": did you mean "open_clip"?'),
        ("onnx", "fp61", '--precision: unknown "fp61": did you mean "fp16"?'),
        ("open_clip", "int8", "--precision: int8 is for --to onnx only: leave it out"),
    ],
)
def test_wrong_words(run: Path, tmp_path: Path, to: str, precision: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make_request(run, to, tmp_path / "out", precision)
    assert str(caught.value) == message


def test_an_existing_folder_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(RecipeError) as caught:
        make_request(run, "transformers", tmp_path / "out")
    assert str(caught.value) == f"{tmp_path}/out: exists already; name another folder"


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        make_request(tmp_path / "run", "transformers", tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path}/run: no folder model there: name a run folder, as runs/medical_xray-1"
    )


def test_a_run_of_seeds(tmp_path: Path) -> None:
    (tmp_path / "run/seed-1/model").mkdir(parents=True)
    (tmp_path / "run/seed-0/model").mkdir(parents=True)
    with pytest.raises(ModelError) as caught:
        make_request(tmp_path / "run", "transformers", tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path}/run: a run of 2 seeds, each with its model: name one: {tmp_path}/run/seed-0"
    )


def test_libraries_that_are_not_installed(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "find_spec", lambda name: None)
    with pytest.raises(RecipeError) as caught:
        make_request(run, "onnx", tmp_path / "out", check=False)
    assert str(caught.value) == "--to onnx: onnx is not installed: pip install 'domainclip[onnx]'"
    with pytest.raises(RecipeError) as caught:
        make_request(run, "open_clip", tmp_path / "out")
    assert str(caught.value) == (
        "--to open_clip: open_clip is not installed to check the files with: pip install open_clip_torch, or add "
        "--no-check to write them unchecked"
    )
    assert make_request(run, "open_clip", tmp_path / "out", check=False).to == "open_clip"
    assert make_request(run, "transformers", tmp_path / "out").check


def test_nothing_heavy_is_loaded_for_a_wrong_word() -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from domainclip.pipelines.export.request import make_request\n"
        "try: make_request(Path('x'), 'onx', Path('y'))\n"
        "except Exception as error: print(error)\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ['--to: unknown form "onx": did you mean "onnx"?', "[]"]
