"""metrics.jsonl: a line a step, and one for each look at held-out data."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from domainclip.distributed import collectives
from domainclip.training.monitoring.tensorboard import TensorBoardWriter
from domainclip.training.validation import ValidationSet


class MetricsLog:
    """The file, cut back to the step that a run continues from; the first process alone writes it.

    What is written goes to TensorBoard too where `board` is wanted.
    """

    def __init__(
        self, file: Path, start: int, seen: ValidationSet | None = None, board: bool = False
    ) -> None:
        self.file = file
        self.started = time.monotonic()
        self.earlier_records: list[dict[str, Any]] = []  # what earlier sessions wrote
        if collectives.rank() > 0:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if start and file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                try:
                    record = json.loads(line)
                except ValueError:  # the line that a kill cut short
                    continue
                if record["step"] <= start:
                    kept.append(line)
                    self.earlier_records.append(record)
                    self.started = time.monotonic() - record["seconds"]  # of all sessions together
        file.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self._board = TensorBoardWriter(file.parent, start) if board else None
        if seen is not None and not kept:
            self.write({"step": 0, "validation": seen.base_metrics})

    def write(self, record: dict[str, Any]) -> None:
        """Adds a line, with the seconds of all sessions so far."""
        if collectives.rank() > 0:
            return
        record = {**record, "seconds": time.monotonic() - self.started}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
        if self._board is not None:
            self._board.write(record)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, when there are any; figures on held-out data stand in them by name."""
    file = folder / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [_flat(json.loads(line)) for line in lines]


def _flat(line: dict[str, Any]) -> dict[str, Any]:
    names = {"loss": "validation_loss", "figure": "validation_figure", "retention": "retention"}
    seen = line.pop("validation", {})
    return line | {name: seen[key] for key, name in names.items() if key in seen}
