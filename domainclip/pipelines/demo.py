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
    made = {
        "make_phantoms.py": folder / "chest_phantom",
        "generated_pictures.py": folder / "generated_pictures",
    }
    for script, target in made.items():
        if not target.exists():
            print(f"making {target}", file=sys.stderr, flush=True)
            draft = target.with_name(f".{target.name}")
            shutil.rmtree(draft, ignore_errors=True)
            subprocess.run(
                [sys.executable, str(builtin.builtin_folder("examples") / script), str(draft)], check=True
            )
            draft.rename(target)
    corpus, general = made.values()
    recipe = loading.load_recipe("quickstart", [f"corpus.path={corpus}", f"retention.path={general}"])
    return finetune(
        recipe,
        RunOptions(folder=next_run_folder(folder / "runs", "quickstart"), command="domainclip demo (local)"),
    )
