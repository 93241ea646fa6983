"""The options of `export`, checked before any library is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from domainclip.errors import RecipeError, did_you_mean
from domainclip.pipelines.run_checks import check_run_model

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
FORMS = ("transformers", "open_clip", "sentence-transformers", "onnx")
_TO_WRITE = {"onnx": ("onnx", "onnxscript", "onnxruntime")}
_TO_CHECK = {"open_clip": ("open_clip",), "sentence-transformers": ("sentence_transformers",)}
_INSTALL = {
    "onnx": "'domainclip[onnx]'",
    "open_clip": "open_clip_torch",
    "sentence-transformers": "sentence-transformers",
}


@dataclass(frozen=True)
class ExportRequest:
    """The options of the command."""

    run: Path
    to: str
    out: Path
    precision: Precision = "fp32"
    check: bool = True


def make_request(run: Path, to: str, out: Path, precision: str = "fp32", check: bool = True) -> ExportRequest:
    """The options, checked.

    Raises: RecipeError for an unknown form or precision, a folder that exists, or a library that is not
    installed, with the command that installs it; ModelError for a folder that is no run.
    """
    if to not in FORMS:
        raise RecipeError(f'--to: unknown form "{to}": {did_you_mean(to, FORMS)}')
    if precision not in PRECISIONS:
        raise RecipeError(f'--precision: unknown "{precision}": {did_you_mean(precision, PRECISIONS)}')
    if precision != "fp32" and to != "onnx":
        raise RecipeError(f"--precision: {precision} is for --to onnx only: leave it out")
    if out.exists():
        raise RecipeError(f"{out}: exists already; name another folder")
    check_run_model(run)
    _require(to, check)
    return ExportRequest(run, to, out, precision, check)


def _require(to: str, check: bool) -> None:
    for name in _TO_WRITE.get(to, ()):
        if not _installed(name):
            raise RecipeError(f"--to {to}: {name} is not installed: pip install {_INSTALL[to]}")
    for name in _TO_CHECK.get(to, ()) if check else ():
        if not _installed(name):
            raise RecipeError(
                f"--to {to}: {name} is not installed to check the files with: pip install {_INSTALL[to]}, or "
                "add --no-check to write them unchecked"
            )


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # a module that a program has set to None
        return False
