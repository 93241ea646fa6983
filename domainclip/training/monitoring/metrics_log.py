"""metrics.jsonl: a line for each logged step, and one for each validation."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from domainclip.distributed import collectives
from domainclip.training.monitoring.trackers import Trackers
from domainclip.training.validation import ValidationSet


class MetricsLog:
    """Writes the file, cut back to the step that a run continues from; the first process alone writes.

    The trackers receive the same numbers.
    """

    def __init__(
        self,
        file: Path,
        start: int,
        validation: ValidationSet | None = None,
        trackers: Trackers | None = None,
    ) -> None:
        self.file, self.trackers = file, trackers
        self.started = time.monotonic()
        self.earlier_records: list[dict[str, Any]] = []  # of earlier sessions
        if collectives.rank() > 0:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        if start and file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                try:
                    record = json.loads(line)
                except ValueError:  # a line that a kill cut short
                    continue
                if record["step"] <= start:
                    lines.append(line)
                    self.earlier_records.append(record)
                    self.started = time.monotonic() - record["seconds"]  # of all sessions together
        file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        if trackers is not None:
            trackers.begin(start)
        if validation is not None and not lines:
            self.write({"step": 0, "validation": validation.base_metrics})

    def write(self, record: dict[str, Any]) -> None:
        """Add a record, with the seconds of all sessions so far."""
        if collectives.rank() > 0:
            return
        record = {**record, "seconds": time.monotonic() - self.started}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
        if self.trackers is not None:
            self.trackers.write(record)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a run's metrics.jsonl, if any, with validation metrics at the top level."""
    file = folder / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [_flattened(json.loads(line)) for line in lines]


def _flattened(record: dict[str, Any]) -> dict[str, Any]:
    names = {"loss": "validation_loss", "figure": "validation_figure", "retention": "retention"}
    validation = record.pop("validation", {})
    return record | {name: validation[key] for key, name in names.items() if key in validation}
