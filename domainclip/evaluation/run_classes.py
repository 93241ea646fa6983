"""The classes of a run, which `eval` measures on another corpus as well, and which `classify` predicts.

A corpus whose card has templates gives a class for each frequent label. On another corpus these may be other
classes, or the same in another spelling, and the metrics would answer another question than those of the run.

`RUN/classes.json` is written when the run begins, `RUN/model/classes.json` when it was evaluated: the same,
with the thresholds and the temperature that hold for the weights beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from domainclip.config.strict_model import StrictModel
from domainclip.data import prepared_format
from domainclip.data.cards import Prompts
from domainclip.data.corpus import Corpus
from domainclip.data.images.image_settings import ImageSettings
from domainclip.data.text.class_names import quoted
from domainclip.errors import ModelError
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.class_decisions import Decisions

FILE = "classes.json"
_PARENTS = 2  # levels between the weights and the run folder at most: RUN/model, RUN/checkpoints/step-8


class RunClasses(StrictModel):
    """The classes of the corpus that a run was trained on, and how its images are shown."""

    version: Literal[2] = 2
    corpus: str  # its fingerprint
    classes: dict[str, Prompts]
    multi_label: bool = False
    templates: list[str] = []  # of the card, for other class names
    images: ImageSettings = ImageSettings()
    dicom_window: int | str = 0  # of the reader of DICOM files
    decisions: Decisions | None = None


def of_corpus(corpus: Corpus) -> RunClasses:
    """The classes of a corpus, without decisions."""
    card = corpus.card
    return RunClasses(
        corpus=corpus.fingerprint,
        classes=corpus.classes,
        multi_label=card.multi_label,
        templates=card.templates,
        images=card.images,
        dicom_window=card.options.get("window", 0) if card.reader == "dicom" else 0,
    )


def save(folder: Path, classes: RunClasses) -> None:
    """Write the classes into a run folder, or beside the weights that their decisions hold for.

    Raises: OSError when they cannot be written.
    """
    prepared_format.write_atomically(folder / FILE, classes.model_dump_json(indent=1).encode())


def load(name: str) -> RunClasses | None:
    """The classes of a run, or of a folder inside one, without decisions; None for any other model.

    Raises: ModelError for a broken file.
    """
    if not Path(name).is_dir():
        return None
    folder = Path(name).resolve()
    # A file of that name in any other folder is none of ours.
    runs = [one for one in (folder, *folder.parents[:_PARENTS]) if (one / "recipe.yaml").is_file()]
    file = next((one / FILE for one in runs if (one / FILE).is_file()), None)
    return None if file is None else _read(file, Path(name) / FILE)


def beside_weights(weights: Path) -> RunClasses | None:
    """The classes and decisions that lie in the folder of the weights; else the classes of their run, if any.

    Raises: ModelError for a broken file.
    """
    file = weights / FILE
    configs = ("config.json", "adapter_config.json", "open_clip_config.json")
    is_model = any((weights / name).is_file() for name in configs)
    return _read(file, file) if is_model and file.is_file() else load(str(weights))


def _read(file: Path, shown: Path) -> RunClasses:
    try:
        return RunClasses.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ModelError(
            f"{shown}: not the classes of a run that this version reads: restore it, or delete "
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
