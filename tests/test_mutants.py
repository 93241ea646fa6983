"""The changes that `make mutants` makes, and what becomes of them."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tools.mutants.changes import changes_of

ROOT = Path(__file__).parent.parent


def edits(source: str) -> list[str]:
    return [change.edit for change in changes_of("module.py", source)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a < b", ["a < b → a <= b"]),
        ("x = 0 <= a", ["0 <= a → 0 < a", "0 → 1"]),
        ("x = a * 2", ["a * 2 → a / 2", "2 → 3", "2 → 1"]),
        ("x = 'a' + b", []),
        ("x = a + (a + b)", ["a + (a + b) → a - (a + b)", "a + b → a - b"]),
        ("x = a - 1, b - 1", ["a - 1 → a + 1", "1 → 2", "1 → 0", "b - 1 → b + 1", "1 → 2 (2)", "1 → 0 (2)"]),
        ("x = a and not b", ["a and (not b) → a or not b", "not b → b"]),
        ("x = f(flag=True)", ["True → False"]),
        ("x = zip(a, b, strict=True)", []),
        ("x: int = min(a, -b)", ["min → max", "-b → b"]),
        ("if found:\n    raise KeyError", ["if found: → if not found:", "raise KeyError → pass"]),
        (
            "def f(a: int | None = 0.5) -> int | None:\n    assert a > 1\n    g(a)",
            ["0.5 → 1.5", "g(a) → pass"],
        ),
        ("@decorator(1)\ndef f():\n    return f'{a + b:.3f}'", ["a + b → a - b"]),
    ],
)
def test_changes_of_a_statement(source: str, expected: list[str]) -> None:
    assert edits(source) == expected


def test_each_change_is_one_change_of_the_whole_module() -> None:
    source = "def f(a, b):\n    c = a + b\n    return c > 1\n"
    trees = [ast.unparse(change.tree) for change in changes_of("module.py", source)]
    assert trees == [
        "def f(a, b):\n    c = a - b\n    return c > 1",
        "def f(a, b):\n    c = a + b\n    return c >= 1",
        "def f(a, b):\n    c = a + b\n    return c > 2",
        "def f(a, b):\n    c = a + b\n    return c > 0",
    ]


def test_listed_modules_and_tests_exist() -> None:
    folder = ROOT / "tools" / "mutants"
    modules = tomllib.loads((folder / "modules.toml").read_text(encoding="utf-8"))["tests"]
    equivalent = tomllib.loads((folder / "equivalent.toml").read_text(encoding="utf-8"))
    files = {*modules, *(test for tests in modules.values() for test in tests)}
    assert [file for file in files if not (ROOT / file).is_file()] == []
    assert set(equivalent) <= set(modules)


MODULE = """
LIMIT = 3

def is_large(value, twice=1):
    return value * twice > LIMIT

def never_called():
    return 1
"""
TESTS = """
from module import is_large

def test_bounds():
    assert is_large(4)
    assert not is_large(2)
"""
TRY = """
from tools.mutants.changes import changes_of
from tools.mutants.trial import try_changes
changes = changes_of("module.py", open("module.py").read())
for change, outcome in zip(changes, try_changes("module.py", ["test_module.py"], changes)):
    print(outcome, change.edit, sep=": ")
"""


def test_what_becomes_of_each_change(tmp_path: Path) -> None:
    for name, text in (("module.py", MODULE), ("test_module.py", TESTS)):
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", TRY],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    # Constants and defaults take effect at import; the rest is exchanged in the loaded function.
    assert done.stdout.splitlines() == [
        "caught: 3 → 4",
        "survived: 3 → 2",
        "caught: 1 → 2",
        "caught: 1 → 0",
        "survived: value * twice > LIMIT → value * twice >= LIMIT",
        "survived: value * twice → value / twice",
        "unreached: 1 → 2",
        "unreached: 1 → 0",
    ]
