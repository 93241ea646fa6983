"""Runs every command of the tutorials as typed, in an empty home, on the data that the tutorials generate.

make tutorials        (TUTORIALS="dicom art" for some)

The base models of recipes come from the Hub. Here each of their names leads to the embedded base of the
demonstration, in a cache of the Hub's form, so that nothing is downloaded and a page takes seconds.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "tutorials"
BASE = ROOT / "examples" / "quickstart" / "base"
COMMIT = "0" * 40


def names() -> list[str]:
    """The tutorials, by file name without suffix."""
    return sorted(page.stem for page in PAGES.glob("*.md") if page.stem != "index")


def commands(name: str) -> str:
    """The shell code of a tutorial: its ```bash blocks in order."""
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


def prepare(folder: Path) -> dict[str, str]:
    """The working folder of a tutorial with the examples in it; the environment of its shell."""
    (folder / "examples").symlink_to(ROOT / "examples")
    programs, home = folder / "bin", folder / "home"
    programs.mkdir()
    for program, module in {"domainclip": " -m domainclip", "python": ""}.items():
        (programs / program).write_text(f'#!/bin/sh\nexec {sys.executable}{module} "$@"\n')
        (programs / program).chmod(0o755)
    _stand_in_bases(home / ".cache" / "huggingface" / "hub")
    settings = {"HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    kept = {name: os.environ[name] for name in ("LANG", "OMP_NUM_THREADS", "TMPDIR") if name in os.environ}
    return {**kept, **settings, "HF_HUB_OFFLINE": "1"}


def _stand_in_bases(cache: Path) -> None:
    """The embedded base under the name of every base model of the recipes."""
    recipes = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in (ROOT / "recipes").glob("*.yaml")]
    for base in {recipe["base"] for recipe in recipes if isinstance(recipe["base"], str)}:
        if not (ROOT / base).exists():
            folder = cache / f"models--{base.replace('/', '--')}"
            (folder / "snapshots").mkdir(parents=True)
            (folder / "snapshots" / COMMIT).symlink_to(BASE)
            (folder / "refs").mkdir()
            (folder / "refs" / "main").write_text(COMMIT)


def run(name: str, show: bool = False) -> float:
    """Run a tutorial; its seconds. Raises SystemExit with the output of the first command that fails."""
    with tempfile.TemporaryDirectory(prefix=f"tutorial_{name}_") as folder:
        environment = prepare(Path(folder))
        started = time.monotonic()
        done = subprocess.run(
            ["bash", "-exuo", "pipefail", "-c", commands(name)],
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        seconds = time.monotonic() - started
    if show or done.returncode:
        print(done.stdout)
    if done.returncode:
        raise SystemExit(f"docs/tutorials/{name}.md: the last command ended with {done.returncode}")
    return seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run the commands of the tutorials.")
    parser.add_argument("names", nargs="*", default=names())
    parser.add_argument("--show", action="store_true", help="print what the commands print")
    options = parser.parse_args()
    for name in options.names:
        print(f"{name}: passed, {run(name, options.show):.0f} s", flush=True)
