"""The notebooks of examples/: valid, without outputs, and named in the tutorials; `make notebooks` executes them."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest

from tools import notebooks

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", notebooks.names())
def test_a_notebook_is_valid_and_holds_no_output(name: str) -> None:
    notebook = nbformat.read(notebooks.EXAMPLES / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 3
    assert [cell.outputs for cell in code if cell.outputs or cell.execution_count] == []
    for cell in code:
        ast.parse(cell.source)
    assert "domainclip.finetune(" in "".join(cell.source for cell in code)
    assert f"examples/{name}.ipynb" in (ROOT / "docs/tutorials/index.md").read_text()


def test_each_domain_has_one() -> None:
    assert {"chest_xrays", "sky_fits", "paintings", "several_languages"} <= set(notebooks.names())


def test_a_cell_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: the executing client is called with errors as errors."""
    asked = {}

    class Client:
        def __init__(self, notebook: nbformat.NotebookNode, **options: object) -> None:
            asked.update(options, cells=len(notebook.cells))

        def execute(self, **options: object) -> None:
            asked.update(options)

    monkeypatch.setattr(notebooks, "NotebookClient", Client)
    notebooks.execute("paintings")
    assert not asked.get("allow_errors")
    assert asked["cells"] > 4
    assert str(asked["cwd"]).endswith("examples")
    assert asked["env"]["HF_HUB_OFFLINE"] == "1"
