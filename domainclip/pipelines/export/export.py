"""The command `export`: write a run's model in the format of another library, and check it there."""

from __future__ import annotations

import importlib
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from domainclip.distributed.folder_lock import refuse_if_in_use
from domainclip.errors import ModelError
from domainclip.pipelines.export import facts, readme, record
from domainclip.pipelines.export.check import check
from domainclip.pipelines.export.form import ExportForm
from domainclip.pipelines.export.record import ExportRecord
from domainclip.pipelines.export.request import ExportRequest
from domainclip.pipelines.export.source import ExportSource, open_source

_FORMS = {
    "transformers": ("transformers_form", "TransformersForm"),
    "open_clip": ("open_clip_form", "OpenClipForm"),
    "sentence-transformers": ("sentence_transformers_form", "SentenceTransformersForm"),
    "onnx": ("onnx_form", "OnnxForm"),
}


def _form(request: ExportRequest) -> ExportForm:
    """The form, whose libraries are optional: each is imported with its file."""
    file, name = _FORMS[request.to]
    module = importlib.import_module(f"domainclip.pipelines.export.{file}")
    form: type[ExportForm] = getattr(module, name)
    return form(precision=request.precision)


def export(request: ExportRequest, report: Callable[[str], None] = lambda _: None) -> ExportRecord:
    """Write the model of a run to a folder; the content of its `export.json`.

    `report` receives a line at the start of each part, which may take a minute.

    Raises: ModelError when the run cannot be read or does not fit the form, the exported model does not agree
    with it, or the folder cannot be written. Then nothing is left at `out`.
    """
    form = _form(request)
    refuse_if_in_use(request.run)
    report(f"reading {request.run}")
    source = open_source(request.run)
    if reason := _joined_refusal(form, source) or form.refusal(source) or _frames_refusal(form, source):
        raise ModelError(f"{request.run}: cannot be exported to {form.name}: {reason}")
    staging = request.out.absolute().parent / f".staging-{request.out.name}-{uuid.uuid4().hex[:8]}"
    try:
        staging.mkdir(parents=True)
        result = _write(form, source, staging, request.check, report)
        os.rename(staging, request.out)
    except OSError as error:
        raise ModelError(f"{request.out}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return result


def _joined_refusal(form: ExportForm, source: ExportSource) -> str:
    """No other library has a class for an ensemble, or for joined towers of open_clip; none for CONCH."""
    if source.model.family == "clip_ensemble":
        return "several models as one, which no other library has: export its members, or use the run itself"
    if source.model.family != "open_clip":
        return ""
    if source.model.hf_base.config.layout == "conch":
        return "family open_clip: no other library has the towers of CONCH: use the run itself"
    if form.name == "open_clip":
        return ""
    return f"family open_clip: {form.name} has no class for its towers: use --to open_clip"


def _frames_refusal(form: ExportForm, source: ExportSource) -> str:
    if source.model.frames == 1 or form.pools_frames:
        return ""
    return (
        f"the run pools up to {source.model.frames} images of a study, which {form.name} does not: use "
        "--to transformers, and domainclip to pool them"
    )


def _write(
    form: ExportForm, source: ExportSource, folder: Path, checked: bool, report: Callable[[str], None]
) -> ExportRecord:
    report(f"writing the files of {form.name}")
    result = facts.unchecked_record(form, source)
    result = result.model_copy(update={"files": form.write(source, folder)})
    record.save(folder, result)
    if checked:
        report("reading them back, and comparing the answers on the validation split")
        result = result.model_copy(update={"check": check(form, source, form.load(folder))})
        record.save(folder, result)
    (folder / "README.md").write_text(readme.render(form, source, result, folder), encoding="utf-8")
    return result
