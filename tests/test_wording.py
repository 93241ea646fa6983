"""Texts for users are in plain English and in the terms of the field.

One list, `BANNED`, holds the words that have a better one. It is applied to the messages, help texts and docstrings
of commands, to the templates of reports, and to docs, README, recipes, suites and data cards.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A pattern of words that are not used, and what is written instead.
BANNED = {
    r"\bprose\b": "anchor texts, text",
    r"\blearnt words?\b": "learned context tokens",
    r"\blearnt\b": "learned, trained",
    r"\bsaid (?:differently|otherwise|apart)\b": "overridden",
    r"\b(?:is|are|was|were) told\b": "receives, is given",
    r"\btold of\b": "reported",
    r"\b(?:the )?towers? (?:say|says|said)\b": "the model's embeddings",
    r"\bwhat \w+ (?:says|say|said)\b": "name the thing",
    r"\blooks? (?:at|on|for) held-out\b": "validation",
    r"\b(?:two|such a) looks?\b": "validation",
    r"\bnobody\b": "no one, no person",
    r"\bwhoever\b": "anyone who",
    r"\bpictures?\b": "image",
    r"\bgeneral set\b": "retention set",
    r"\bgeneral sentences\b": "anchor texts",
    r"\bgeneral figure\b": "headline metric on the retention set",
    r"\bway out\b": "remedy",
    r"\bby lot\b": "at random",
    r"\bthat ships?\b|\bshipped\b": "built-in",
    r"\bof yours\b|\bof one's own\b": "your",
    r"\bverbs?\b": "command",
    r"\bkept on disk\b": "cached on disk",
    r"\bgone on with\b|\bgoes on\b": "continues",
    r"\bat work at once\b": "at the same time",
    r"\bflatters?\b": "is too optimistic",
    r"\bhad a say\b|\bhas a say\b": "influenced",
    r"\bmend (?:it|them)\b": "repair",
}
# Where a word is the right one: a name, or an English verb in its usual sense.
ALLOWED = re.compile(
    r"generated_pictures|a \{\} in a picture|A picture of|telescope picture of|image=picture|picture\.png|a picture of|/pictures|pictures/|unreadable_pictures|\w+_pictures?\b|\bverb phrase"
)
MESSAGE_CALLS = {
    "RecipeError",
    "DataError",
    "ModelError",
    "HubError",
    "DivergedError",
    "ValueError",
    "UnreadableImage",
}
MESSAGE_CALLS |= {
    "print",
    "echo",
    "warning",
    "warn",
    "append",
    "Option",
    "Argument",
    "Typer",
    "Finding",
    "Alarm",
}


def _faults(text: str, where: str) -> list[str]:
    text = ALLOWED.sub("", text)
    return [
        f"{where}: {match[0]!r}: write {better}"
        for pattern, better in BANNED.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]


def _strings(node: ast.AST) -> list[tuple[int, str]]:
    return [
        (inner.lineno, inner.value)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
    ]


def _messages(path: Path) -> list[tuple[int, str]]:
    """The strings in raise statements, prints, help texts and notes; of cli/ also the docstrings, which are help."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    messages = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            messages += _strings(node)
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            messages += _strings(node) if name in MESSAGE_CALLS else []
        elif isinstance(node, ast.FunctionDef) and path.parent.name == "cli":
            messages.append((node.lineno, ast.get_docstring(node) or ""))
    return messages


CODE = [path for path in sorted((ROOT / "domainclip").rglob("*.py")) if "_shipped" not in path.parts]
TEXTS = sorted(
    [
        *[ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"],
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "recipes").rglob("*.yaml"),
        *(ROOT / "suites").glob("*.yaml"),
        *(ROOT / "data_cards").glob("*.md"),
        *(ROOT / "domainclip").rglob("*.j2"),
    ]
)


@pytest.mark.parametrize("package", sorted({path.relative_to(ROOT).parts[1] for path in CODE}))
def test_messages_and_help_are_in_plain_english(package: str) -> None:
    faults = [
        fault
        for path in CODE
        if path.relative_to(ROOT).parts[1] == package
        for line, text in _messages(path)
        for fault in _faults(text, f"{path.relative_to(ROOT)}:{line}")
    ]
    assert sorted(set(faults)) == []


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_recipes_and_cards_are_in_plain_english(page: Path) -> None:
    lines = enumerate(page.read_text(encoding="utf-8").splitlines(), start=1)
    assert [fault for number, line in lines for fault in _faults(line, f"line {number}")] == []


def test_the_list_finds_what_it_bans() -> None:
    assert _faults("Recipe keys said differently; a picture", "here") == [
        "here: 'said differently': write overridden",
        "here: 'picture': write image",
    ]
    assert _faults("an image of a cat, overridden; card generated_pictures", "here") == []
