"""Executes the notebooks of examples/ from the first cell to the last, in a copy, in an empty home.

make notebooks        (python tools/notebooks.py chest_xrays, for one)

The notebooks in the repository hold no outputs; tests/examples/test_notebooks.py checks that.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
LONGEST = 600  # seconds for one cell


def names() -> list[str]:
    """The notebooks, by file name without suffix."""
    return sorted(notebook.stem for notebook in EXAMPLES.glob("*.ipynb"))


def execute(name: str) -> float:
    """Execute a notebook; its seconds. Raises CellExecutionError with the cell that fails."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"notebook_{name}_") as folder:
        copy = shutil.copytree(EXAMPLES, Path(folder) / "examples", ignore=shutil.ignore_patterns("*.ipynb"))
        environment = {"HOME": folder, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
        client = NotebookClient(notebook, timeout=LONGEST, kernel_name="python3")
        client.execute(cwd=str(copy), env=os.environ | environment)
    return time.monotonic() - started


if __name__ == "__main__":
    for name in sys.argv[1:] or names():
        print(f"{name}: passed, {execute(name):.0f} s", flush=True)
