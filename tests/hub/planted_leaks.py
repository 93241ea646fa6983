"""Private data of a fictitious person, planted in a run folder that is pushed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from domainclip.errors import DomainclipError, ExitCode, HubError

TOKEN = "hf_CanaryTokenThatNobodyMaySee0"
# Name, record number, DICOM UID, date, file name and location of a fictitious person.
CANARIES = ("DOE_JANE", "00482913", "1.2.840.113619.2.55.3.604688119.969", "19610417", "knee_left", "PACS")


def plant(run: Path) -> None:
    """Write files to a run folder that must not be pushed."""
    (run / "checkpoints" / "step-000200").mkdir(parents=True)
    (run / "features").mkdir()
    for name in (
        *("notes.txt", "items.parquet", "metrics.jsonl", "environment.json", "DOE_JANE_knee_left.png"),
        *("checkpoints/step-000200/optimizer.safetensors", "features/DOE_JANE.npy", "model/DOE_JANE.dcm"),
        *("model/README.md", "model/pytorch_model.bin", "model/modeling_clip.py", "model/training_args.json"),
    ):
        (run / name).write_text(" ".join(CANARIES))


def fault(call: Callable[[], object]) -> str:
    """The message of the HubError that the call raises: one line, without the token."""
    with pytest.raises(DomainclipError) as caught:
        call()
    assert isinstance(caught.value, HubError)
    assert caught.value.code == ExitCode.HUB == 5
    assert TOKEN not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)
