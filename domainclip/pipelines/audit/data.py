"""Leaks and privacy: what the run recorded of its corpus, and what its texts hold."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from domainclip.config.recipe import Recipe
from domainclip.data.cards import Card
from domainclip.data.checks.findings import LEAK_CODES
from domainclip.data.text.identifiers import find_identifiers
from domainclip.errors import DomainclipError, HubError
from domainclip.hub.allowlist import files_to_push
from domainclip.pipelines.audit.checks import Check, Status
from domainclip.pipelines.data_check import target
from domainclip.pipelines.data_check.check import check_corpus
from domainclip.report import redaction
from domainclip.report.front_matter import FRONT_MATTER
from domainclip.report.results_file import ResultsFile

# The recipe holds the paths of this machine, by design, and is rewritten when it is pushed.
_TEXTS = ("*.md", "*.html", "*.tex", "*.json", "*.jsonl", "*.csv", "*.log", "*.txt")
_PRIVATE = ("checkpoints", "recipe.yaml", "trained_on.json", "tokenizer.json", "vocab.json")
_MARKUP = re.compile(r"<(script|style)\b.*?</\1>|<svg\b.*?</svg>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_DATE = "date"  # a date alone is as often that of an evaluation


def check_leaks(run: Path, card: Card, results: ResultsFile, read_corpus: bool) -> Iterator[Check]:
    """Leaks between splits, as recorded when the run began, and with the corpus read again on request."""
    area = "leaks"
    if results.valid:
        yield Check(area, "passed", "the evaluation is valid: no group and no image was in two splits")
    else:
        yield Check(area, "failed", "the evaluation is marked invalid: see the warnings in report.md")
    if _ignores_near_duplicates(card):
        level = card.checks.near_duplicates
        text = f'near-duplicates between splits do not count: the card sets them to "{level}"'
        yield Check(area, "warning", text)
    for statement in results.protocol.get("trained_on", []):
        found = re.search(r": (\d+) measured items? ", statement)
        status: Status = "unknown" if found is None else "failed" if int(found[1]) else "passed"
        yield Check(area, status, statement)
    if read_corpus:
        yield from _corpus_again(run, card, results)
    else:
        yield Check(area, "unknown", "the corpus was not read again: add --corpus to do so")


def _corpus_again(run: Path, card: Card, results: ResultsFile) -> Iterator[Check]:
    area = "leaks"
    try:
        checked = check_corpus(target.from_recipe(str(run / "recipe.yaml"), [], with_base=False))
    except DomainclipError:  # its message may name a path or a cell
        yield Check(area, "unknown", "the corpus cannot be read here: see domainclip data check")
        return
    recorded = results.corpus.get("fingerprint")
    if checked.corpus.fingerprint != recorded:
        yield Check(area, "failed", "the corpus is not the one of the run any more: its fingerprint differs")
    else:
        yield Check(area, "passed", "the corpus is the one of the run: its fingerprint is equal")
    leaks = [one for one in checked.findings if one.code in LEAK_CODES and one.level == "error"]
    yield from (Check(area, "failed", leak.text) for leak in leaks)
    if not leaks:
        kinds = "group or image" if _ignores_near_duplicates(card) else "group, image or near-duplicate"
        yield Check(area, "passed", f"read again: no {kinds} is in two splits")


def _ignores_near_duplicates(card: Card) -> bool:
    return card.checks.near_duplicates not in (None, "error")


def check_privacy(run: Path, recipe: Recipe, card: Card) -> Iterator[Check]:
    """The statements of the card, the texts of the run folder, and what a push would send."""
    area, privacy = "privacy", card.privacy
    stated = privacy.identifiers != "unknown" and privacy.burned_in_text != "unknown"
    values = f"the card states identifiers: {privacy.identifiers}, burned_in_text: {privacy.burned_in_text}"
    yield Check(area, "passed" if stated else "unknown", values)
    may_show = privacy.burned_in_text == "no" and privacy.identifiers in ("none", "de-identified")
    if recipe.report.examples and not may_show:
        yield Check(area, "failed", "report.examples shows images that the card does not allow: measure anew")
    elif recipe.report.examples:
        yield Check(area, "warning", "report.html shows images and captions, as the card allows")
    else:
        yield Check(area, "passed", "report.html shows no image and no caption: report.examples is off")
    yield from _texts(run, recipe)
    try:
        files = files_to_push(run)
    except HubError as error:
        yield Check(area, "warning", f"a push would be refused: {error}")
    else:
        yield Check(
            area, "passed", f"a push would send {len(files)} files, in which nothing private was found"
        )


def _texts(run: Path, recipe: Recipe) -> Iterator[Check]:
    """Identifiers by their form, and what a push refuses, in each text; counted, never quoted."""
    area, found, count = "privacy", 0, 0
    paths = redaction.local_paths(recipe, run)
    for file in sorted({file for pattern in _TEXTS for file in run.rglob(pattern) if file.is_file()}):
        name = file.relative_to(run)
        if name.parts[0] in _PRIVATE or name.name in _PRIVATE:
            continue
        count += 1
        text = file.read_text(encoding="utf-8", errors="replace")
        kinds = Counter(one.kind for one in find_identifiers(_words(text, file)) if one.kind != _DATE)
        hidden = redaction.hide(text, paths)
        kinds.update(kind for _, kind in redaction.search(hidden, json=file.suffix.startswith(".json")))
        if kinds:
            found += 1
            listed = ", ".join(f"{number} × {kind}" for kind, number in sorted(kinds.items()))
            yield Check(area, "failed", f"{name.as_posix()}: {listed}: read it before you share the folder")
    if not found:
        yield Check(area, "passed", f"no identifier was found in {count} texts of the folder, by their form")


def _words(text: str, file: Path) -> str:
    """The words of a page without its markup, and of a model card without the keys of its front matter."""
    if file.suffix == ".html":
        return html.unescape(_MARKUP.sub(" ", text))
    return FRONT_MATTER.sub("", text, count=1) if file.name == "README.md" else text
