"""`README.md` of an export: the model card of the run, with the use and the check of these files."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from domainclip.errors import DomainclipError
from domainclip.pipelines.export.form import ExportForm
from domainclip.pipelines.export.record import Check, ExportRecord
from domainclip.pipelines.export.source import ExportSource
from domainclip.report import external_evaluations, model_card, results_file
from domainclip.report.usage import ModelUse

log = logging.getLogger("domainclip")
_START = """\
import json

import numpy as np
from PIL import Image

folder = "."  # of this file
with open(f"{folder}/export.json", encoding="utf-8") as file:
    export = json.load(file)
"""
_USE = re.compile(r"^## Use\n.*?(?=^## )", re.DOTALL | re.MULTILINE)
_TEXTS = """
image = Image.open("image.png").convert("RGB")
texts = ["a description", "another description"]
print(encode_images([image]) @ encode_texts(texts).T)  # cosines
"""
_CLASSES = """

def class_vectors(side):
    vectors = np.zeros((len(export["classes"]), export["width"]), np.float32)
    for row, prompts in enumerate(export["classes"].values()):
        if prompts[side]:
            mean = encode_texts(prompts[side]).mean(axis=0)
            vectors[row] = mean / np.linalg.norm(mean)
    return vectors


image = Image.open("image.png").convert("RGB")
"""
_ONE_CLASS = """\
logits = export["scale"] * encode_images([image]) @ class_vectors("positive").T / (export["temperature"] or 1)
probabilities = np.exp(logits - logits.max())
probabilities /= probabilities.sum()
print(dict(zip(export["classes"], probabilities[0].round(3).tolist())))
"""
_FINDINGS = """\
margins = encode_images([image]) @ (class_vectors("positive") - class_vectors("negative")).T
for name, score in zip(export["classes"], export["scale"] * margins[0]):
    threshold = export["thresholds"].get(name)  # chosen on validation
    print(name, score, "" if threshold is None else "present" if score >= threshold else "absent")
"""


def render(form: ExportForm, source: ExportSource, record: ExportRecord, folder: Path) -> str:
    """The card of the run with plain weights, as Markdown; without results, the use and the check alone.

    In the form of transformers, the card describes the use itself.
    """
    sections = f"{_use(form, record)}\n{_checked(form, record)}\n"
    card = _card(source, folder)
    if card is None:
        return f"# A CLIP model for {form.name}\n\n{sections}"
    card = card.replace("library_name: transformers\n", f"library_name: {form.hub_library}\n", 1)
    if form.hub_library == "transformers":
        return card
    return _USE.sub(lambda _: f"{sections}\n", card, count=1)


def snippet(form: ExportForm, record: ExportRecord) -> str:
    """The Python of the use, which runs in the folder of the export with its packages alone."""
    if not record.classes:
        return f"{_START}{form.snippet}{_TEXTS}"
    return f"{_START}{form.snippet}{_CLASSES}{_FINDINGS if record.multi_label else _ONE_CLASS}"


def _card(source: ExportSource, folder: Path) -> str | None:
    run = source.run
    if not (run / "results.json").is_file():
        return None
    try:
        results = results_file.load(run / "results.json")
        return model_card.render(
            results,
            model_card.CardFacts.of(run),
            ModelUse.of(folder, model_card.family(results)),
            external=external_evaluations.load(run),
        )
    except DomainclipError as error:
        log.warning("%s: no card is written beside the exported model: %s", run, error)
        return None


def _use(form: ExportForm, record: ExportRecord) -> str:
    lines = ["## Use", "", f"    pip install {form.packages}", "", *_cautions(record)]
    return "\n".join([*lines, "```python", snippet(form, record).rstrip(), "```", ""])


def _cautions(record: ExportRecord) -> list[str]:
    tokenizer, lines = record.tokenizer, []
    if tokenizer.lower_case:
        lines.append("The model was trained on text in lower case: lower-case other texts first.")
    if tokenizer.prefix:
        lines.append('Learned tokens stand before every text: `export["tokenizer"]["prefix"] + text`.')
    if tokenizer.inserts_by_class:
        lines.append(
            "The prompts in `export.json` hold tokens that were learned for each class. Other texts that "
            "name a class need the same tokens, which domainclip inserts."
        )
    if record.frames > 1:
        lines.append(
            f"The run pooled up to {record.frames} images of a study (`pooling.json`), which domainclip "
            "does; other libraries encode single images."
        )
    return [" ".join(lines), ""] if lines else []


def _checked(form: ExportForm, record: ExportRecord) -> str:
    lines = ["## Agreement with the model of the run", ""]
    if record.check is None:
        return "\n".join([*lines, "**Not checked.**", ""])
    check = record.check
    measured = f"{check.library}, {record.precision}, on {check.items} items ({check.items_of})"
    lines += [f"Measured with {measured}.", ""]
    rows = [("largest difference of an embedding", f"{check.largest_difference:.1e}")]
    rows += [("the same, on images that are resized", f"{check.largest_difference_resized:.1e}")]
    rows += [(name, f"{share:.1%}") for name, share in shares(check)]
    rows += [(one.metric, f"{one.run:.4f} → {one.exported:.4f}") for one in check.metrics]
    return "\n".join([*lines, "| | run → export |", "|---|--:|", *(f"| {a} | {b} |" for a, b in rows), ""])


def shares(check: Check) -> list[tuple[str, float]]:
    """The shares of equal answers that were measured, with their names."""
    named = {
        "same most probable class": check.same_class,
        "same side of the threshold": check.same_findings,
        "same nearest text": check.same_first_text,
    }
    return [(name, share) for name, share in named.items() if share is not None]
