"""Files: whether they are those that the run wrote, and whether the metrics are those of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from domainclip.errors import DomainclipError
from domainclip.models.loading import load_model
from domainclip.pipelines.audit.checks import Check
from domainclip.report.manifest import FILE, REWRITTEN, ListedFile
from domainclip.report.results_file import ResultsFile
from domainclip.training.checkpointing import checkpoint

AREA = "files"


def check_files(run: Path, files: Sequence[ListedFile] | None, results: ResultsFile) -> Iterator[Check]:
    """The list of the run, its checkpoints and its weights."""
    if files is None:
        yield Check(AREA, "unknown", f"the run wrote no {FILE}: whether its files are unchanged is not known")
    else:
        yield from _listed(files)
    for path in checkpoint.all_checkpoints(run / "checkpoints"):
        fault = checkpoint.verify_checkpoint(path)
        if fault is not None:
            yield Check(AREA, "failed", f"checkpoints/{path.name}: {fault}: delete it")
    yield _weights(run, results)


def _listed(files: Sequence[ListedFile]) -> Iterator[Check]:
    unchanged = [file for file in files if file.status == "as written"]
    yield Check(AREA, "passed", f"{len(unchanged)} of {len(files)} files are as the run wrote them")
    for file in files:
        if file.status == "changed" and file.path in REWRITTEN:
            yield Check(AREA, "warning", f"{file.path}: changed since the run, as eval or a person may")
        elif file.status in ("changed", "missing"):
            text = f"{file.path}: {file.status} since the run: restore it, or do not rely on this folder"
            yield Check(AREA, "failed", text)
        elif file.status == "added":
            yield Check(AREA, "warning", f"{file.path}: not a file of the run")


def _weights(run: Path, results: ResultsFile) -> Check:
    measured = results.adapted.get("weights_sha256")
    if not measured:
        return Check(AREA, "unknown", "results.json names no adapted weights")
    try:
        model = load_model(run / "model")
    except DomainclipError:
        text = "model: its weights cannot be loaded here, so they are not compared with results.json"
        return Check(AREA, "unknown", text)
    if model.fingerprint("all") != measured:
        return Check(AREA, "failed", "model: not the weights that results.json measured: restore them")
    return Check(AREA, "passed", "the weights in model are those that results.json measured")
