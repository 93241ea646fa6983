"""A run whose base the recipe finds on the Hub, and whose corpus lies where a patient's name stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from domainclip.errors import DomainclipError, ExitCode, HubError

TOKEN = "hf_CanaryTokenThatNobodyMaySee0"
# A name, a record number, a DICOM UID, a date, a file and a place of a person who is made up.
CANARIES = ("DOE_JANE", "00482913", "1.2.840.113619.2.55.3.604688119.969", "19610417", "knee_left", "PACS")


def plant(run: Path) -> None:
    """What lies about in a run folder, and must stay there."""
    (run / "checkpoints" / "step-000200").mkdir(parents=True)
    (run / "features").mkdir()
    for name in (
        *("notes.txt", "items.parquet", "metrics.jsonl", "environment.json", "DOE_JANE_knee_left.png"),
        *("checkpoints/step-000200/optimizer.safetensors", "features/DOE_JANE.npy", "model/DOE_JANE.dcm"),
        *("model/README.md", "model/pytorch_model.bin", "model/modeling_clip.py", "model/training_args.json"),
    ):
        (run / name).write_text(" ".join(CANARIES))


def fault(call: Callable[[], object]) -> str:
    """The one line of a fault of the Hub's kind."""
    with pytest.raises(DomainclipError) as caught:
        call()
    assert isinstance(caught.value, HubError)
    assert caught.value.code == ExitCode.HUB == 5
    assert TOKEN not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)
