"""Imports go one way, and every component is complete: checked on the disk, not by convention."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
import yaml

from domainclip import registry

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "domainclip"

# A package may import itself and those before it; imports for type checking count as well.
ORDER = [
    *("errors", "seeding", "disk_cache", "registry", "config", "distributed", "data", "models"),
    *("objectives", "strategies", "evaluation", "components", "training", "report", "hub", "inference"),
    *("pipelines", "cli", "__init__", "__main__"),
]
TESTS = {
    "readers": "tests/data/readers",
    "curation": "tests/data/curation",
    "strategies": "tests/strategies",
    "objectives": "tests/objectives",
    "probes": "tests/evaluation/probes",
}
COMPONENT_ROOMS = ("strategies", "objectives", "pipelines", "training")


def _files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if "_shipped" not in path.parts]


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_module(path): path for path in _files()}


def _imports(path: Path) -> set[str]:
    """The modules of this package that a file imports, wherever the import stands."""
    result = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "domainclip":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            result |= {name if name in MODULES else str(node.module) for name in names}
        elif isinstance(node, ast.Import):
            result |= {alias.name for alias in node.names if alias.name in MODULES}
    return result - {_module(path)}


IMPORTS = {module: _imports(path) for module, path in MODULES.items()}


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def _cycles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Sets of nodes that reach each other, by repeatedly removing nodes that import nothing left."""
    left = {node: {other for other in others if other in graph} for node, others in graph.items()}
    while free := [node for node, others in left.items() if not others]:
        left = {node: others - set(free) for node, others in left.items() if node not in free}
    while free := [node for node in left if not any(node in others for others in left.values())]:
        left = {node: others for node, others in left.items() if node not in free}
    return [sorted(left)] if left else []


def _children(package: str) -> dict[str, set[str]]:
    """The files and folders directly in a package, and which of them each one imports."""
    graph: dict[str, set[str]] = defaultdict(set)
    prefix = f"{package}."
    for module, imported in IMPORTS.items():
        if module.startswith(prefix):
            child = module.removeprefix(prefix).split(".")[0]
            others = {name.removeprefix(prefix).split(".")[0] for name in imported if name.startswith(prefix)}
            graph[child] |= others - {child}
    return graph


def test_every_package_has_a_place() -> None:
    rooms = {_room(module) for module in MODULES}
    assert len(rooms) > 15
    assert rooms - set(ORDER) == set()


def test_imports_go_one_way() -> None:
    level = {room: height for height, room in enumerate(ORDER)}
    upward = [
        f"{module} imports {other}"
        for module, imported in IMPORTS.items()
        for other in sorted(imported)
        if other != "domainclip" and level[_room(other)] > level[_room(module)]
    ]
    assert upward == []


def test_no_module_imports_itself_through_others() -> None:
    assert _cycles(IMPORTS) == []


@pytest.mark.parametrize("package", sorted({module.rpartition(".")[0] for module in MODULES} - {""}))
def test_no_cycle_inside_a_package(package: str) -> None:
    assert _cycles(_children(package)) == []


def test_the_cycle_check_finds_cycles() -> None:
    assert _cycles({"a": ["b"], "b": ["c"], "c": ["b"], "d": ["a"]}) == [["b", "c"]]
    assert _cycles({"a": ["b"], "b": ["c"], "c": [], "d": ["a"]}) == []


def test_packages_stay_small_enough_to_see() -> None:
    def entries(folder: Path) -> list[str]:
        return [
            p.name for p in folder.iterdir() if p.is_dir() or p.suffix == ".py" if not p.name.startswith("_")
        ]

    assert len(entries(PACKAGE)) <= 18
    assert len(entries(PACKAGE / "data")) <= 20


@pytest.mark.parametrize("kind", registry.KINDS)
def test_components_of_one_kind_never_import_each_other(kind: str) -> None:
    package = "domainclip." + registry.PACKAGES[kind].replace("/", ".")
    components = {f"{package}.{name}" for name in registry.names(kind)}
    for module in components:
        assert IMPORTS[module] & components == set(), module


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_component_is_complete(kind: str) -> None:
    names = registry.names(kind)
    assert names, "nothing was listed: the test would pass on an empty folder"
    used = _names_in_recipes_and_cards()
    for name in names:
        component = registry.find(kind, name)
        assert component.__doc__, f"{kind}/{name} has no docstring"
        assert component.citation, f"{kind}/{name} has no source"
        assert (ROOT / TESTS[kind] / f"test_{name}.py").is_file(), f"{kind}/{name} has no test file"
        assert name in used, f"{kind}/{name} stands in no recipe and no card"
        assert registry.schema(kind, name)["title"] == component.__name__


def _names_in_recipes_and_cards() -> set[str]:
    words: set[str] = set()
    recipes = sorted((ROOT / "recipes").glob("*.yaml"))
    cards = sorted((ROOT / "data_cards").glob("*.md"))
    assert len(recipes) >= 5
    assert len(cards) >= 5
    suites = sorted((ROOT / "suites").glob("*.yaml"))
    assert len(suites) >= 3
    for file in [*recipes, *suites]:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
        for key in ("strategy", "objectives", "probes", "curation"):
            value = data.get(key) or {}
            words |= {value} if isinstance(value, str) else set(value)
    for file in cards:
        front = yaml.safe_load(file.read_text(encoding="utf-8").split("---")[1])
        words.add(front["domainclip"].get("reader", "table"))
    return words


def test_files_and_functions_stay_readable() -> None:
    long = []
    for path in _files():
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > 300:
            long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > 60:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines")
    assert long == []


def test_no_component_is_asked_what_it_can_do() -> None:
    """A base class with a default answers; only values of other libraries may be probed by name."""
    asked = re.compile(
        r"\b(hasattr|getattr)\(\s*(self\.)?(\w*(strategy|objective|probe|reader|curation|component))\b"
    )
    lines = [
        f"{path.relative_to(ROOT)}:{number} {line.strip()}"
        for room in COMPONENT_ROOMS
        for path in sorted((PACKAGE / room).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
        if asked.search(line)
    ]
    assert lines == []
