"""What is typed by mistake, or in the words of another program; completion, and colours."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from domainclip.cli import completion
from domainclip.cli.app import app, main
from domainclip.errors import did_you_mean

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in this process and an empty folder: its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def go(*words: str) -> tuple[int, str, str]:
        code = 0
        try:
            main(list(words))
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return go


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("train", "No such command 'train'. Did you mean 'domainclip finetune'?"),
        ("predict runs/a x.png", "Did you mean 'domainclip classify'?"),
        ("check data", "Did you mean 'domainclip data check'?"),
        ("finetuen", "No such command 'finetuen'. Did you mean 'finetune'?"),
        ("finetune quickstart", 'override "quickstart": a recipe is named with --recipe quickstart; '),
        ("finetune -r quickstart pets.yaml", "a recipe is named with --recipe pets.yaml"),
        ("finetune -r quickstart images", "a corpus is named with corpus.path=images; write it as key=value"),
        ("finetune", "finetune: name a recipe with --recipe"),
        ("finetune -r quickstart epochs=3", 'epochs: unknown key: did you mean "train.epochs"?'),
        ("finetune -r quickstart lr=1e-4", 'lr: unknown key: did you mean "train.learning_rate"?'),
        ("finetune -r quickstart train.lr=1e-4", 'train.lr: unknown key: did you mean "learning_rate"?'),
        ("finetune -r quickstart model=a/b", 'model: unknown key: did you mean "base"?'),
        ("finetune -r quickstart batch_sizes=3", 'did you mean "train.batch_size"?'),
        ("recipes show art", 'no file or built-in name "art": did you mean "art_paintings"?'),
        ("components show zero", 'no component "zero": did you mean "zero_shot"?'),
        ("finetune -r quickstart train.trackers=wanb", "train.trackers.0: input should be 'tensorboard'"),
    ],
)
def test_what_was_meant(run: Run, tmp_path: Path, line: str, part: str) -> None:
    (tmp_path / "images").mkdir()
    code, _, errors = run(*line.split())
    assert code == 2
    assert part in errors


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("-h", "finetune"),
        ("help", "finetune"),
        ("help finetune", "--resume"),
        ("finetune -h", "--resume"),
        ("help data check", "--without-model"),
        ("data check -h", "--without-model"),
    ],
)
def test_help_is_asked_for_in_any_way(run: Run, line: str, part: str) -> None:
    code, output, errors = run(*line.split())
    assert (code, errors) == (0, "")
    assert part in output
    assert output.startswith("Usage: ")


def test_nothing_is_proposed_for_a_word_without_a_likeness() -> None:
    assert did_you_mean("xyzzy", ["epochs", "seed"]) == "known: epochs, seed."
    assert (
        did_you_mean("ed", ["seedlings", "weeding"]) == "known: seedlings, weeding."
    )  # two letters lie in many names
    assert (
        did_you_mean("art", ["art_paintings", "art_of_maps"])
        == "did you mean one of art_of_maps, art_paintings?"
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("finetune --recipe medical_x", {"medical_xray"}),
        ("finetune --recipe no_such", set()),
        ("recipes show ablations/qui", {"ablations/quickstart"}),
        ("cards show xm", {"xm3600"}),
        ("data check --card chest_ph", {"chest_phantom"}),
        ("components show lor", {"lora"}),
        ("components list strat", {"strategies"}),
        ("ablate quick", {"quickstart"}),
        ("eval runs/a --suite med", {"medical", "medical_benchmark"}),
        ("finetune --recipe quickstart train.learn", {"train.learning_rate="}),
        ("finetun", {"finetune"}),
    ],
)
def test_a_shell_completes(line: str, expected: set[str]) -> None:
    """As bash asks for it: the protocol of the completion itself."""
    words = f"domainclip {line}"
    environment = {
        **os.environ,
        "_DOMAINCLIP_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    result = CliRunner().invoke(app, [], prog_name="domainclip", env=environment)
    assert set(result.output.split()) == expected


def test_completion_can_be_installed(run: Run) -> None:
    output = run("--help")[1]
    assert "--install-completion" in output
    assert "--show-completion" in output


def test_keys_of_sections_and_no_keys_that_users_name() -> None:
    keys = completion.recipe_keys("")
    assert {"train.epochs=", "base.path=", "corpus.path=", "evaluate.split=", "strategy="} <= set(keys)
    assert not any(key.startswith("strategy.") for key in keys)


def test_no_colour_where_none_is_wanted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    coloured = run("cards", "list")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    plain = run("cards", "list")[1]
    assert "\x1b[" in coloured
    assert not any(f"\x1b[{code}m" in plain for code in range(30, 48))
