"""The last lines of a command that measured a model: its answers, and what to try next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from domainclip.config.recipe import Recipe
from domainclip.data.cards import corpus_root
from domainclip.data.files import locations
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.evaluate import Evaluation
from domainclip.report.closing import closing_lines
from domainclip.report.context import ReportContext


def close(
    evaluation: Evaluation,
    context: ReportContext,
    say: Callable[[str], None],
    run: Path | None = None,
    recipe: Recipe | None = None,
    measured: EvaluationSet | None = None,
) -> None:
    """Say the answers of a report and, after the training or evaluation of a run, the next commands."""
    for line in closing_lines(evaluation, context):
        say(line)
    if run is not None and recipe is not None and measured is not None:
        for line in next_commands(run, recipe, measured):
            say(line)


def next_commands(run: Path, recipe: Recipe, measured: EvaluationSet) -> Iterator[str]:
    """A command that uses the model on images of the corpus, as typed, and how to measure it elsewhere."""
    name = shlex.quote(str(run))
    place = _images(recipe, measured)
    if place is not None and measured.classes:
        yield f"Try it: domainclip classify {name} {shlex.quote(place)}"
    elif place is not None:
        yield f'Try it: domainclip search {name} "a photo" --in {shlex.quote(place)}'
    yield f"On data from elsewhere: domainclip eval {name} --against base corpus.path=NEW"


def _images(recipe: Recipe, measured: EvaluationSet) -> str | None:
    """The folder or shards of the corpus, where its images are files; no name of a file is taken."""
    path = recipe.corpus.path
    if path is None or not len(measured.items):
        return None
    if path.endswith(".tar"):
        return _from_here(Path(path))
    image = str(measured.items[0]["image"]["path"] or "")
    root = corpus_root(path).resolve()
    file, fragment = locations.split_location(image)
    below = Path(file).is_file() and Path(file).resolve().is_relative_to(root) and "offset" not in fragment
    return _from_here(corpus_root(path)) if below else None


def _from_here(path: Path) -> str:
    """The path as it is typed in the working folder."""
    here = Path.cwd()
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)
