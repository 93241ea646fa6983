"""The command `demo`: generated corpus, embedded base, one run, its report."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from domainclip.config import builtin, loading
from domainclip.pipelines.finetune import finetune
from domainclip.pipelines.locate import next_run_folder
from domainclip.training.run_context import RunOptions


def demo(folder: Path) -> Path | None:
    """The quickstart: generated chest phantoms as DICOM files, the embedded base, one run, its report.

    A corpus that is there already is used again; every demonstration is a run of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    corpus = _make(folder / "chest_phantom", "make_phantoms.py")
    general = _make(folder / "generated_pictures", "generated_pictures.py")
    captions = _make(folder / "general_captions.txt", "generated_pictures.py", "--captions")
    recipe = loading.load_recipe(
        "quickstart", [f"corpus.path={corpus}", f"retention.path={general}", f"anchor_texts.path={captions}"]
    )
    return finetune(
        recipe,
        RunOptions(folder=next_run_folder(folder / "runs", "quickstart"), command="domainclip demo (local)"),
    )


def _make(target: Path, script: str, *options: str) -> Path:
    """What a script of the examples writes, where it is not there yet."""
    if not target.exists():
        print(f"making {target}", file=sys.stderr, flush=True)
        draft = target.with_name(f".{target.name}")
        shutil.rmtree(draft, ignore_errors=True)
        file = builtin.builtin_folder("examples") / script
        subprocess.run([sys.executable, str(file), str(draft), *options], check=True)
        draft.rename(target)
    return target
