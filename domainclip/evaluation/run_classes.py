"""The classes of a run, which `eval` measures on another corpus as well.

A corpus whose card has templates gives a class for each frequent label. On another corpus these may be other
classes, or the same in another spelling, and the metrics would answer another question than those of the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from domainclip.data.cards import Card, Prompts
from domainclip.data.corpus import Corpus
from domainclip.data.text.class_names import quoted
from domainclip.errors import ModelError
from domainclip.evaluation.base import EvaluationSet

FILE = "classes.json"
_VERSION = 1
_PARENTS = 2  # levels between the weights and the run folder at most: RUN/model, RUN/checkpoints/step-8


@dataclass(frozen=True)
class RunClasses:
    """The classes of the corpus that a run was trained on."""

    corpus: str  # its fingerprint
    classes: dict[str, Prompts]


def save(folder: Path, corpus: Corpus) -> None:
    """Write the classes of the corpus into a run folder.

    Raises: OSError when they cannot be written.
    """
    classes = {name: prompts.model_dump() for name, prompts in corpus.classes.items()}
    data = {"version": _VERSION, "corpus": corpus.fingerprint, "classes": classes}
    (folder / FILE).write_text(json.dumps(data, ensure_ascii=False, indent=1), encoding="utf-8")


def load(name: str) -> RunClasses | None:
    """The classes of a run, or of a folder inside one; None for any other model.

    Raises: ModelError for a broken file.
    """
    if not Path(name).is_dir():
        return None
    folder = Path(name).resolve()
    # A file of that name in any other folder is none of ours.
    runs = [one for one in (folder, *folder.parents[:_PARENTS]) if (one / "recipe.yaml").is_file()]
    file = next((one / FILE for one in runs if (one / FILE).is_file()), None)
    if file is None:
        return None
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["version"] != _VERSION:
            raise ValueError
        return RunClasses(
            str(data["corpus"]), dict(Card.model_validate({"classes": data["classes"]}).classes)
        )
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(
            f"{Path(name) / FILE}: not the classes of a run that this version reads: restore it, or delete "
            "it to take the classes of the corpus"
        ) from None


def default_classes(data: EvaluationSet, run: RunClasses | None) -> tuple[dict[str, Prompts], str]:
    """The classes that a set is measured with when none are named, and which they are, in words.

    Those of the run where the corpus is another one, unless its card writes its classes out or none of its
    labels is a class of the run. The words are empty where the corpus is that of the run.
    """
    if run is None or not run.classes or run.corpus == data.fingerprint:
        return data.classes, ""
    labels = {label for row in data.items["labels"][:] for label in row}
    if data.card.classes:
        return data.classes, _in_words("those of the card of this corpus", data.classes)
    if not labels:
        return data.classes, ""
    if not labels & set(run.classes):
        why = "those of this corpus, since none of its labels is a class of the run"
        return data.classes, _in_words(why, data.classes)
    return run.classes, _in_words("those of the run, whose corpus is another one", run.classes)


def _in_words(which: str, names: Iterable[str]) -> str:
    named = list(names)
    return f"classes: {which}: {quoted(named, 8) or 'none'}; --classes names others"
