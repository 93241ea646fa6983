"""The record of an export before it is checked."""

from __future__ import annotations

from typing import Any

from domainclip import __version__
from domainclip.evaluation.class_decisions import Decisions
from domainclip.pipelines.export.form import ExportForm
from domainclip.pipelines.export.record import ExportRecord, ImageInput, Tokenizing
from domainclip.pipelines.export.source import ExportSource


def unchecked_record(form: ExportForm, source: ExportSource) -> ExportRecord:
    """The record of a model in a form; no path and no name of a file enters it."""
    model, classes = source.model, source.classes
    decisions = (classes.decisions if classes is not None else None) or Decisions()
    return ExportRecord(
        form=form.name,
        precision=form.precision,
        domainclip=__version__,
        family=model.family,
        width=model.width,
        scale=source.expected.scale,
        bias=None if model.bias is None else source.expected.bias,
        tokenizer=tokenizing(source),
        image=_image_input(source),
        frames=model.frames,
        multi_label=classes is not None and classes.multi_label,
        classes=source.prompts,
        thresholds=decisions.thresholds,
        temperature=decisions.temperature,
    )


def tokenizing(source: ExportSource) -> Tokenizing:
    """How the model's texts become token ids."""
    tokenizer = source.model.text_tokenizer
    outputs = tokenizer.outputs or tuple(tokenizer(["a"]))
    return Tokenizing(
        outputs=list(outputs),
        padding="max_length" if tokenizer.fixed_length else "longest",
        max_tokens=tokenizer.max_tokens,
        lower_case=tokenizer.lower_case,
        prefix=source.text_prefix,
        inserts_by_class=source.inserts_by_class,
    )


def _image_input(source: ExportSource) -> ImageInput:
    steps: Any = source.model.image_preprocessor
    return ImageInput(
        size=steps.size,
        resize=steps.resize,
        crop=steps.crop,
        resample=steps.resample,
        rescale=steps.rescale,
        mean=list(steps.mean),
        std=list(steps.std),
    )
