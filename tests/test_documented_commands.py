"""Every command line of the documentation, cards, recipes and `--help`, as a real shell passes it on.

One bash runs all lines with a function in the place of the program, so that quotes, braces, globs, comments and
redirections mean what they mean to people; the words are then parsed and validated in this process. How far each goes:

- every line: parsed, with its options and types; its recipe, card, suite, plan and overrides are loaded and its
  components built, with the files that the page itself writes;
- lines that read neither corpus nor model (recipes, cards, components, schema, validate, cache): run;
- lines of docs/tutorials: all run as typed, trainings included, by `make tutorials`;
- `data check` on generated images: run here;
- Python: names and arguments of every block; make targets, scripts and extras: exist. `make notebooks` runs Python.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shutil
import subprocess
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import typer.core
from PIL import Image

from domainclip import components, registry
from domainclip.cli import arguments
from domainclip.cli.app import app, main
from domainclip.config import builtin, loading
from domainclip.data.cards import Card, load_card
from domainclip.evaluation import suites
from domainclip.inference.adapted_model import AdaptedModel
from domainclip.pipelines.ablation import plan
from domainclip.pipelines.data_check.target import from_card

ROOT = Path(__file__).parent.parent
TEXTS = [
    *(ROOT / "README.md", ROOT / "CONTRIBUTING.md"),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "data_cards").glob("*.md")),
    *sorted((ROOT / "recipes").rglob("*.yaml")),
    *sorted((ROOT / "suites").glob("*.yaml")),
]
SOURCES = sorted((ROOT / "domainclip").rglob("*.py"))
HERE_DOCUMENT = re.compile(r"^cat > (\S+) <<'END'\n(.*?)^END$", re.MULTILINE | re.DOTALL)
READS_NO_CORPUS = ("recipes ", "cards ", "components ", "schema", "validate", "data cache list")
PLAN = "recipe: quickstart\nvariants: {a: [], b: [train.warmup=0]}\n"


def command_lines(text: str) -> Iterator[str]:
    """The lines of code, of comments and between backticks that begin with the program's name."""
    joined = text.replace("\\\n", " ")
    yield from re.findall(r"^(?:#|    |  )?\s*(domainclip [a-z].*)$", joined, re.MULTILINE)
    yield from (" ".join(code.split()) for code in re.findall(r"`(domainclip [a-z][^`]*)`", joined))


def complete(line: str) -> bool:
    """Whether a line can be typed: no gap, no placeholder that a shell would take for something else."""
    return not any(mark in line for mark in ("…", "(local)", "[OPTIONS]", "...", "<", "|"))


def documented() -> list[tuple[str, str]]:
    """The file and the text of every command line."""
    found = [
        (str(file.relative_to(ROOT)), line) for file in TEXTS for line in command_lines(file.read_text())
    ]
    return [(file, line.partition(", then: ")[0].rstrip(".")) for file, line in found if complete(line)]


def words_of(lines: list[str], folder: Path) -> list[list[str]]:
    """The words that a shell makes of each line, after the program's name."""
    start = r"domainclip() { printf '%s\0' \"$@\"; printf '\1\0'; } >&3" + "\n"
    script = start.replace('\\"', '"') + "\n".join(f"{line}\nprintf '\\2\\0' >&3" for line in lines)
    out = folder / "words"
    done = subprocess.run(
        ["bash", "-c", f"exec 3>'{out}'\n{script}"], cwd=folder, capture_output=True, text=True
    )
    assert done.stderr == ""
    calls = out.read_text().split("\2\0")[:-1]
    assert len(calls) == len(lines)
    return [call.split("\1\0")[0].split("\0")[:-1] for call in calls]


def parsed(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The command that the words name, and its arguments; a wrong option or type raises."""
    command: Any = typer.main.get_command(app)
    context = command.context_class(command)
    names = []
    while isinstance(command, typer.core.TyperGroup):
        name, command, words = command.resolve_command(context, words)
        assert command is not None
        names.append(name or "")
        context = command.context_class(command, parent=context)
    return " ".join(names), command.make_context(names[-1], list(words)).params


def validate(command: str, given: dict[str, Any]) -> None:
    """What can be checked of a command without corpus, model and network."""
    if command == "ablate":
        plan.load(given["plan"], given["overrides"] or [], None)
        return
    if command == "data preview":
        assert given["words"][-1].endswith(".html"), "the page is named last"
    if command.startswith("recipes") and (name := given.get("name")):
        assert name in builtin.builtin_names("recipes", ".yaml") or name.startswith("ablations/")
    if given.get("suite"):
        suites.load(given["suite"])
    if given.get("classes"):
        assert suites.parse_classes(given["classes"])
    changes, card = given.get("overrides") or [], given.get("card")
    if command == "eval":
        _, changes = arguments.models_and_overrides(given["words"])
    elif "words" in given:
        _, changes = arguments.paths_and_overrides(given["words"] or [])
    recipe = given.get("recipe")
    if recipe is None and (card or (changes and command != "eval")):
        validate_card(from_card(card, "corpus", changes).card)
    elif recipe or changes:
        loaded = loading.load_recipe(recipe or "hub_dataset", changes)
        components.build_components(loaded)
        validate_card(load_card(loaded.corpus.card, loaded.corpus.overrides()))


def validate_card(card: Card) -> None:
    registry.build("readers", card.reader, card.options, "corpus.options")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the files of people's own that the lines name."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine.yaml", "recipe.yaml", "RECIPE"):
        shutil.copy(ROOT / "recipes" / "astronomy.yaml", tmp_path / name)
    (tmp_path / "clip-art").mkdir()  # a pushed run, downloaded
    shutil.copy(ROOT / "recipes" / "art_paintings.yaml", tmp_path / "clip-art" / "recipe.yaml")
    (tmp_path / "my_plan.yaml").write_text(PLAN)
    (tmp_path / "classes.yaml").write_text("cat: a cat\ndog: a dog\n")
    for page in TEXTS:  # what a page writes with cat > FILE <<'END'
        for name, content in HERE_DOCUMENT.findall(page.read_text()):
            (tmp_path / name).write_text(content)
    return tmp_path


def test_every_documented_command_line(folder: Path) -> None:
    lines = list({line: (file, line) for file, line in documented()}.values())
    assert len(lines) > 100
    faults: list[str] = []
    mentions: list[str] = []
    for (file, line), words in zip(lines, words_of([line for _, line in lines], folder), strict=True):
        try:
            validate(*parsed(words))
        except typer.core._click.exceptions.MissingParameter:
            mentions.append(line)
        except Exception as error:
            faults.append(f"{file}: {line}: {type(error).__name__}: {error}")
    assert not faults, "\n".join(faults)
    # Between words, a command without its arguments: "domainclip plan estimates it".
    assert max(len(line.split()) for line in mentions) <= 4, mentions


def test_commands_that_read_no_corpus_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for _, line in documented() if line.partition(" ")[2].startswith(READS_NO_CORPUS)]
    assert len(lines) > 15
    faults = []
    for line, words in dict(zip(lines, words_of(lines, folder), strict=True)).items():
        if words[1:2] == ["copy"]:
            (folder / words[-1]).unlink(missing_ok=True)
        with pytest.raises(SystemExit) as ended:
            main(list(words))
        out = capsys.readouterr()
        if ended.value.code and "Missing option" not in out.err:  # a mention between words
            faults.append(f"{line}: exit code {ended.value.code}: {out.err}")
    assert not faults, "\n".join(faults)


def python_blocks(text: str) -> Iterator[str]:
    """The Python of a page: indented blocks and fences that import domainclip."""
    fenced = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)
    blocks = (textwrap.dedent(block) for block in (*fenced, *indented))
    yield from (block for block in blocks if re.search(r"^from domainclip", block, re.MULTILINE))


def test_python_of_the_pages_names_what_there_is() -> None:
    """Imports resolve, and the arguments of functions of domainclip and of methods of its model fit."""
    blocks = [(page, block) for page in TEXTS for block in python_blocks(page.read_text())]
    assert len(blocks) > 3
    bound = 0
    for page, block in blocks:
        names: dict[str, Any] = {"model": AdaptedModel} if "load_model" in block else {}
        tree = ast.parse(block, str(page))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                names |= {alias.asname or alias.name: getattr(module, alias.name) for alias in node.names}
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            function, receiver = _called(call, names)
            if inspect.isfunction(function):
                given = [*receiver, *call.args]
                inspect.signature(function).bind(*given, **{str(k.arg): k.value for k in call.keywords})
                bound += 1
    assert bound > 8


def _called(call: ast.Call, names: dict[str, Any]) -> tuple[Any, list[object]]:
    """What a call of a block calls: a name that it imports, or a method of the variable `model`."""
    if isinstance(call.func, ast.Name):
        return names.get(call.func.id), []
    if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
        value = names.get(call.func.value.id)
        return (getattr(value, call.func.attr), [None]) if value is AdaptedModel else (None, [])
    return None, []


def test_a_wrong_argument_in_python_is_found() -> None:
    call = ast.parse('model.classify(["film.dcm"], template="a {}")').body[0].value  # type: ignore[attr-defined]
    function, receiver = _called(call, {"model": AdaptedModel})
    with pytest.raises(TypeError, match="unexpected keyword argument 'template'"):
        inspect.signature(function).bind(*receiver, *call.args, **{k.arg: k.value for k in call.keywords})


def test_make_targets_scripts_and_extras_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    faults = []
    for page in TEXTS:
        text = page.read_text()
        made = re.findall(r"^    make ([\w-]+)|`make ([\w-]+)`", text, re.MULTILINE)
        faults += [f"{page.name}: make {name}" for name in map("".join, made) if name not in targets]
        wanted = ",".join(re.findall(r"domainclip\[([\w,]+)\]", text)).split(",")
        faults += [f"{page.name}: domainclip[{one}]" for one in filter(None, wanted) if one not in extras]
        scripts = re.findall(r"^(?:    )?python ([\w/]+\.py)", text, re.MULTILINE)
        faults += [f"{page.name}: {script}" for script in scripts if not (ROOT / script).is_file()]
    assert not faults


def overrides_in(text: str) -> Iterator[str]:
    """Overrides such as corpus.columns.split="" in a message or a card."""
    keys = "corpus|train|evaluate|retention|report|weight_interpolation|anchor_texts"
    values = (
        r"""(?:"[^"]*"|\[[^\]]*\]|\{(?:[^{}]|\{[^{}]*\})*\}|(?:[^\s`;,:)"'\]{}]|,(?=\w))*[^\s`;,:.)"'\]{}])"""
    )
    yield from (word for word, _ in re.findall(rf"(([\"']?)\b(?:{keys})(?:\.\w+)+={values}\2)", text))


def messages(file: Path) -> Iterator[str]:
    """The texts of a source file; values that are filled in become X, which no test can know."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_override_that_a_message_or_a_card_names(folder: Path) -> None:
    texts = [(file, text) for file in SOURCES for text in messages(file)]
    texts += [(file, file.read_text()) for file in TEXTS if file.name != "results.md"]
    named = {
        word: file.relative_to(ROOT)
        for file, text in texts
        for word in overrides_in(text)
        if not word.endswith(("=", "={}")) and not re.search(r"=X|…|[A-Z]{3,}|[<(]", word)
    }
    assert len(named) > 40
    lines = [f"domainclip {word}" for word in named]
    faults = []
    for (word, file), words in zip(named.items(), words_of(lines, folder), strict=True):
        try:
            assert len(words) == 1
            recipe = loading.load_recipe("hub_dataset", [*_needed(word), *words])
            load_card(recipe.corpus.card, recipe.corpus.overrides())
        except Exception as error:
            faults.append(f"{file}: {word}: {type(error).__name__}: {error}")
    assert not faults, "\n".join(faults)


def _needed(word: str) -> list[str]:
    """Other keys without which an override is refused."""
    if word.startswith("retention."):
        return ["retention.path=general"]
    if word == "corpus.splits.by=source":
        return ["corpus.card=null", "corpus.columns.source=site"]
    return ["train.validate_every=5"] if "drop" in word or "best" in word else ["corpus.card=null"]


@pytest.fixture
def images(folder: Path) -> Path:
    draw = np.random.default_rng(0)
    (folder / "images").mkdir()
    rows = ["image,caption,split,group"]
    for i in range(12):
        pixels = draw.integers(0, 256, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        (folder / "images" / f"{i}.txt").write_text(f"a thing, number {i}")
        rows.append(f"images/{i}.png,thing {i},{'train' if i % 2 else 'test'},P{i // 2}")
    (folder / "t.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('domainclip data check --card class_folders images corpus.captions.template="{text}"', 0),
        ("domainclip data check --card class_folders images corpus.captions.template={text}", 0),
        ("domainclip data check t.csv", 3),
        ('domainclip data check t.csv corpus.columns.split=""', 0),
        ("domainclip data check t.csv corpus.columns.split=''", 0),
        ("domainclip data check t.csv corpus.columns.split=", 0),
        ("domainclip data check t.csv columns.split=[]", 2),
    ],
)
def test_on_generated_images(images: Path, line: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The text beside an image as its caption; groups in two splits, and the way out that the leak names."""
    with pytest.raises(SystemExit) as ended:
        main([*words_of([line], images)[0], "--workers", "1"])
    out = capsys.readouterr()
    assert int(ended.value.code or 0) == code, out.out + out.err
    if "t.csv" in line and code == 3:
        assert 'set corpus.columns.split="" to split by group' in out.out
