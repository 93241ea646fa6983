"""How often a split was measured, and with how many models: one measured until a metric pleases is no test.

One line for each model and measurement, in the run folder and, by fingerprint of the corpus, in the user's
cache. It counts the measurements of this user on this machine; no name, path or identifier is written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
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


@dataclass(frozen=True)
class SplitUsage:
    """The measurements of one split of one corpus so far."""

    split: str
    times: int
    models: int  # different ones, by their weights
    prompts: int  # different sets of prompts

    def __str__(self) -> str:
        times = "once" if self.times == 1 else f"{self.times} times"
        prompts = f", {self.prompts} sets of prompts" if self.prompts > 1 else ""
        return f"the {self.split} split has been read {times} with {_count(self.models, 'model')}{prompts}"


def record(
    corpus: str, split: str, models: Iterable[str], prompts: str = "", run: Path | None = None
) -> SplitUsage:
    """Write a line for each model (sha256 of its weights) and return the usage by all lines of the corpus.

    A file that cannot be written raises no error: then the lines that it holds are counted, or the new ones.
    """
    when = datetime.now(UTC).isoformat(timespec="seconds")
    lines = [
        {"when": when, "corpus": corpus, "split": split, "model": model, "prompts": prompts}
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


def _count_usage(file: Path, split: str, new: list[dict[str, str]]) -> SplitUsage:
    # A measurement of all items is one of this split as well.
    known = [line for line in _lines(file) if line.get("split") in (split, ALL)] or new
    return SplitUsage(
        split,
        len(known),
        len({line.get("model") for line in known}),
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
        if isinstance(value, dict):
            lines.append(value)
    return lines


def _count(n: int, word: str) -> str:
    return f"{n} {word}" + ("" if n == 1 else "s")


def record_split_usage(
    sets: Sequence[EvaluationSet],
    evaluation: Evaluation,
    encoders: Sequence[CachedEncoder],
    run: Path | None = None,
) -> SplitUsage:
    """Record that these models were measured on each set, and return the usage of the first set."""
    models = [encoder.model.fingerprint("all") for encoder in encoders]
    usages = []
    for data in sets:
        details = [entry["details"] for entry in evaluation.protocol if entry["dataset"] == data.name]
        prompts = next((str(entry["prompts_sha256"]) for entry in details if "prompts_sha256" in entry), "")
        usages.append(record(data.fingerprint, data.split, models, prompts, run))
    return usages[0]
