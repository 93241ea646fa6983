"""How often a split was measured, for how many adapted models: one read until a metric pleases is no test.

A ledger has one line for each model and measurement, in the run folder and, by fingerprint of the corpus, in
the user's cache. Lines of one evaluation share an id: base and adapted model that are compared are one
reading, not two. It counts the evaluations of this user on this machine; no name, path or identifier is
written.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from domainclip import disk_cache
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.evaluate import Evaluation

FILE = "ledger.jsonl"
ALL = "all"  # the split of a set that takes all items of a corpus
ON_VALIDATION = "evaluate.split=validation"  # as typed at the end of a command
_MANY = 3  # evaluations of the test split, from which on the report warns


@dataclass(frozen=True)
class SplitUsage:
    """The evaluations of one split of one corpus so far."""

    split: str
    evaluations: int  # a run or an `eval` with all its models is one
    adapted_models: int  # different ones, by their weights
    prompts: int  # different sets of prompts

    def __str__(self) -> str:
        times = "once" if self.evaluations == 1 else f"{self.evaluations} times"
        models = _count(self.adapted_models, "adapted model") if self.adapted_models else "the base alone"
        prompts = f", with {self.prompts} sets of prompts" if self.prompts > 1 else ""
        return f"the {self.split} split has been read {times}, for {models}{prompts}"

    @property
    def overused(self) -> bool:
        """Whether results on this split must be read with care; the validation split is there to be read."""
        return self.split != "validation" and self.evaluations >= _MANY

    @property
    def warning(self) -> str:
        """The sentence for the first screen of a report; empty where nothing is wrong."""
        if not self.overused:
            return ""
        return (
            f"This is evaluation {self.evaluations} of the {self.split} split, for "
            f"{_count(self.adapted_models, 'adapted model')}: a result that was picked among several is too "
            f"optimistic. Try things out with {ON_VALIDATION} at the end of domainclip finetune or eval, and "
            "read the test split once, when all is chosen."
        )


@dataclass(frozen=True)
class Measured:
    """The models of one evaluation, by the sha256 of their weights."""

    evaluation: str  # its id
    base: Sequence[str] = ()
    adapted: Sequence[str] = ()

    @staticmethod
    def of(evaluation: str, encoders: Iterable[CachedEncoder], base: str) -> Measured:
        """The models behind the encoders; `base` is the sha256 of the base's weights."""
        models = [encoder.model.fingerprint("all") for encoder in encoders]
        return Measured(evaluation, [m for m in models if m == base], [m for m in models if m != base])


def new_evaluation() -> str:
    """An id for an evaluation that begins."""
    return uuid.uuid4().hex[:16]


def evaluation_of(folder: Path, split: str, adapted: Collection[str] | None = None) -> str:
    """The id of the evaluation on a split that a run folder has begun, or the folder that it lies in.

    A run that is resumed, and runs that are reported together, are one evaluation. With `adapted`, the sha256
    of all models that are measured, only one that has measured no other model; a new id where there is none.
    """
    for place in (folder, folder.resolve().parent):
        models: dict[str, set[str]] = {}
        for line in (line for line in _lines(place / FILE) if line.get("split") == split):
            known = models.setdefault(line["evaluation"], set())
            known |= {str(line.get("model"))} if line.get("adapted") else set()
        for evaluation, known in models.items():
            if adapted is None or known <= set(adapted):
                return evaluation
    return new_evaluation()


def record(
    corpus: str, split: str, measured: Measured, prompts: str = "", run: Path | None = None
) -> SplitUsage:
    """Write a line for each model and return the usage by all lines of the corpus.

    A file that cannot be written raises no error: then the lines that it holds are counted, or the new ones.
    """
    when = datetime.now(UTC).isoformat(timespec="seconds")
    shared = {"when": when, "evaluation": measured.evaluation, "corpus": corpus, "split": split}
    lines: list[dict[str, Any]] = [
        {**shared, "model": model, "adapted": adapted, "prompts": prompts}
        for models, adapted in ((measured.base, False), (measured.adapted, True))
        for model in models
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    cached = disk_cache.root() / "ledgers" / f"{corpus[:40]}.jsonl"
    for file in [cached] if run is None else [cached, run / FILE]:
        _append(file, text)
    return _count_usage(cached, split, lines)


def _append(file: Path, text: bytes) -> None:
    """Append in one write, so that lines of concurrent processes stay whole."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError:
        return
    try:
        os.write(handle, text)
    except OSError:  # a full disk
        pass
    finally:
        os.close(handle)


def _count_usage(file: Path, split: str, new: list[dict[str, Any]]) -> SplitUsage:
    # A measurement of all items is one of this split as well.
    known = [line for line in _lines(file) if line.get("split") in (split, ALL)] or new
    return SplitUsage(
        split,
        len({line["evaluation"] for line in known}),
        len({line.get("model") for line in known if line.get("adapted")}),
        len({line.get("prompts") for line in known}),
    )


def _lines(file: Path) -> list[dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        return []
    lines = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:  # a line cut short by a full disk
            continue
        if isinstance(value, dict) and isinstance(value.get("evaluation"), str):
            lines.append(value)
    return lines


def _count(n: int, word: str) -> str:
    return f"{n} {word}" + ("" if n == 1 else "s")


def record_split_usage(
    sets: Sequence[EvaluationSet], evaluation: Evaluation, measured: Measured, run: Path | None = None
) -> SplitUsage:
    """Record that these models were measured on each set, and return the usage of the first set."""
    usages = []
    for data in sets:
        details = [entry["details"] for entry in evaluation.protocol if entry["dataset"] == data.name]
        prompts = next((str(entry["prompts_sha256"]) for entry in details if "prompts_sha256" in entry), "")
        usages.append(record(data.fingerprint, data.split, measured, prompts, run))
    return usages[0]
