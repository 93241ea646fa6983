"""Front matter of any type and form ends in one line, as the Hub would refuse it, or is pushed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from domainclip.cli.app import main
from domainclip.report.front_matter import is_language, problem, unmarked
from tests.support.run_folders import made_run, recipe

VALUES: list[Any] = [["mit"], {"a": "mit"}, 3, 0.5, True, None, [], {}, [None], [["en"]], [{"a": 1}], ""]
MODEL = {
    "name": "a",
    "results": [
        {
            "task": {"type": "t"},
            "dataset": {"name": "d", "type": "d"},
            "metrics": [{"type": "m", "value": 0.5}],
        }
    ],
}


def card(**front: Any) -> str:
    return f"---\n{yaml.safe_dump({'license': 'mit', **front})}---\n\n# A model\n"


def test_a_valid_card() -> None:
    front = {"language": ["en", "de", "fil"], "tags": ["a"], "base_model": "lab/clip", "model-index": [MODEL]}
    assert problem(card(**front)) is None
    assert problem(card(language="multilingual", license="odc-by")) is None


@pytest.mark.parametrize("written", ["\ufeff{}", "\n{}", " {}"])
def test_marks_and_line_ends_of_editors(written: str) -> None:
    text = written.format(card())
    assert problem(text) is None
    assert problem(text.replace("\n", "\r\n")) is None
    assert problem(text.replace("\n", "\r")) is None
    assert unmarked("\ufeffa\r\nb\r") == "a\nb\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("# A model\n", "its front matter is missing: begin the file with it, between two lines of ---"),
        ("", "its front matter is missing"),
        ("license: mit\n---\n", "its front matter is missing"),
        ("---\nlicense: mit\n\n# A model\n", "its front matter has no end: write a line of --- below it"),
        ("--- \nlicense: mit\n# A model", "its front matter has no end"),
        ("---\n---\n", "its front matter is nothing: write keys with values"),
        ("---\n- mit\n---\n", "its front matter is a list"),
        ("---\nmit\n---\n", "its front matter is a text"),
        ("---\n42\n---\n", "its front matter is a number"),
        ("---\nlicense: mit\nlicense: mit\n---\n", 'its front matter, line 2: key "license" occurs twice'),
        ("---\nlicense: &a mit\ntags: [*a]\n---\n", "its front matter, line 2: alias *a"),
        ("---\nlicense: !!python/name:os.system x\n---\n", "its front matter, line 1: tag"),
        ("---\nlicense: [mit\n---\n", "its front matter: not valid YAML: line"),
        ("---\n? {a: 1}\n: mit\n---\n", "its front matter"),
        ("---\nlicense: mit\x00\n---\n", "its front matter: not valid YAML"),
        ("---\n" + "[" * 3000 + "\n---\n", "its front matter, line 1: more than 50 levels"),
        (
            card(license="apache2"),
            'license: "apache2" is not a licence of the Hub: did you mean "apache-2.0"?',
        ),
        (card(license="MIT"), 'license: "MIT" is not a licence of the Hub: did you mean "mit"?'),
        (card(license="by"), 'license: "by" is not a licence of the Hub'),
        (card(license=r"see D:\PACS\doe"), "license: the text is not a licence of the Hub"),
        (card(license="other"), "license: other needs license_name"),
        (card(license=["mit"]), "license: a list is not allowed: write one text, such as license: mit"),
        (card(license={"name": "mit"}), "license: a mapping is not allowed: write one text"),
        (card(license=4), "license: a number is not allowed"),
        (card(license=None), "license: missing: write an identifier of the Hub"),
        (
            card(language=["en", "jp"]),
            "language: a code is not one of ISO 639, two or three small letters, such as ja",
        ),
        (
            card(language="pt-BR"),
            "language: a code is not one of ISO 639, two or three small letters, such as pt",
        ),
        (card(language="noinfo"), "language: a code is not one of ISO 639"),
        (
            card(language=[1]),
            "language: a number is not allowed: write a text or a list of texts, such as language: [en]",
        ),
        (card(tags={"a": 1}), "tags: a mapping is not allowed"),
        (card(base_model=["lab/clip", "/srv/doe"]), "base_model: must be a repository name, OWNER/NAME"),
        (card(**{"model-index": {"a": 1}}), "model-index: input should be a valid list: correct it"),
        (card(**{"model-index": [MODEL | {"results": [1]}]}), "model-index.0.results.0: input should be"),
    ],
)
def test_the_fault_is_one_line(text: str, fault: str) -> None:
    found = problem(text)
    assert found is not None
    assert found.startswith(fault)
    assert "\n" not in found


def test_every_key_with_every_type() -> None:
    keys = "license license_name license_link library_name pipeline_tag language base_model datasets metrics tags"
    for key in [
        *keys.split(),
        "base_model_relation",
        "thumbnail",
        "model-index",
        "widget",
        "inference",
        "extra",
    ]:
        for value in VALUES:
            found = problem(card(**{key: value}))
            assert found is None or (found.startswith(key) and "\n" not in found), (key, value, found)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (card(license=["mit"]).encode(), "license: a list is not allowed"),
        (card().encode("utf-16"), "not UTF-8 text, at byte 0: save it as UTF-8"),
        (b"# A model\n", "its front matter is missing"),
        (b"", "its front matter is missing"),
    ],
)
def test_a_push_ends_with_the_code_of_the_hub(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes, fault: str
) -> None:
    run = made_run(tmp_path / "run", settings=recipe("lab/base-clip"))
    (run / "README.md").write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        main(["push", str(run), "--repo-id", "lab/x", "--dry-run"])
    printed = capfd.readouterr()
    assert (ended.value.code, printed.out) == (5, "")
    assert printed.err.startswith(f"domainclip: {run}/README.md: {fault}")
    assert printed.err.count("\n") == 1


def test_a_card_of_another_editor_is_pushed_as_the_hub_reads_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = made_run(tmp_path / "run", settings=recipe("lab/base-clip"))
    text = (run / "README.md").read_text(encoding="utf-8")
    (run / "README.md").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    with pytest.raises(SystemExit) as ended:
        main(["push", str(run), "--repo-id", "lab/x", "--dry-run"])
    assert not ended.value.code
    printed = capfd.readouterr().out
    assert "===== README.md =====\n---\n" in printed
    assert "\r" not in printed


def test_codes_of_languages() -> None:
    assert all(map(is_language, ("en", "zh", "yue", "multilingual")))
    assert not any(map(is_language, ("jp", "EN", "english", "", "xx", "en-US")))
