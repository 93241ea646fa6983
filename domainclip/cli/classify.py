"""The command `classify`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from domainclip.cli import output
from domainclip.cli.output import CsvOption, ImageColumn, JsonOption, ModelArgument, QuietOption

if TYPE_CHECKING:
    from domainclip.inference.classifier import Finding
    from domainclip.pipelines.classify import ClassifiedImages


def classify(
    model: ModelArgument,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES...", help="Images, folders, patterns, tables that name images, or tar shards."
        ),
    ],
    classes: Annotated[
        str | None,
        typer.Option(help='Class names: "cat,dog", or a YAML file of names or of prompts by name.'),
    ] = None,
    templates: Annotated[
        list[str] | None,
        typer.Option("--templates", help='A prompt template, e.g. "a scan of {}"; repeatable.'),
    ] = None,
    image_column: ImageColumn = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    quiet: QuietOption = False,
) -> None:
    """Classify images by the classes of a run, or by others.

    A run on a corpus of several findings an image gives each finding with its probability, and whether it
    reaches the threshold that was chosen on the validation split. Probabilities are called calibrated only
    where `eval` or `finetune` fitted a temperature on the validation split.

    Exit code 3: some images cannot be read; they are named, and the others are classified.

    \b
    domainclip classify runs/medical_xray-1 film.dcm
    domainclip classify runs/pets-1 photos/ "more/*.jpg" --csv > classes.csv
    domainclip classify runs/pets-1 photos/ --classes "cat,dog" --templates "a blurry photo of a {}"
    domainclip classify runs/astronomy-1 sky.csv --image-column cutout --json
    """
    chosen = output.output_format(as_json, as_csv)
    from domainclip.inference import typed_files

    typed_files.check_model(model)
    found = typed_files.find_files(files)
    from domainclip.pipelines import classify as pipelines_classify

    result = pipelines_classify.classify(
        pipelines_classify.ClassifyRequest(
            model=model,
            files=found,
            classes=classes,
            templates=templates or [],
            image_column=image_column,
            quiet=quiet,
        )
    )
    output.print_notes(result.notes, quiet)
    _print(result, model, chosen)
    if chosen == "table" and result.names:
        output.print_notes([_basis(result, model)], quiet)
    output.report_unreadable(result.unreadable, len(result.names) + len(result.unreadable))


def _print(result: ClassifiedImages, model: str, chosen: output.Format) -> None:
    if chosen == "json":
        output.print_json(_document(model, result))
    elif chosen == "csv":
        _print_csv(result)
    elif result.names:
        _print_table(result)


def _document(model: str, result: ClassifiedImages) -> dict[str, Any]:
    if result.question.multi_label:
        images: list[dict[str, Any]] = [
            {"image": name, "findings": {key: vars(value) for key, value in findings.items()}}
            for name, findings in zip(result.names, result.findings, strict=True)
        ]
    else:
        images = [
            {"image": name, "class": one.label, "probabilities": one.probabilities}
            for name, one in zip(result.names, result.classifications, strict=True)
        ]
    unreadable = [{"image": one.name, "reason": one.reason} for one in result.unreadable]
    return {
        "schema_version": 1,
        "model": model,
        **result.facts(),
        "images": images,
        "unreadable": unreadable,
    }


def _print_csv(result: ClassifiedImages) -> None:
    names = list(result.question.classes)
    lost = [[one.name, *[""] * (len(names) + 1), one.reason] for one in result.unreadable]
    if result.question.multi_label:
        rows = [
            [name, "|".join(_present(findings)), *(_plain(findings[key]) for key in names), ""]
            for name, findings in zip(result.names, result.findings, strict=True)
        ]
        output.print_csv(["image", "present", *names, "unreadable"], [*rows, *lost])
        return
    rows = [
        [name, one.label, *(f"{one.probabilities[key]:.6f}" for key in names), ""]
        for name, one in zip(result.names, result.classifications, strict=True)
    ]
    output.print_csv(["image", "class", *names, "unreadable"], [*rows, *lost])


def _print_table(result: ClassifiedImages) -> None:
    if result.question.multi_label:
        _print_findings(result)
        return
    ranked = [sorted(one.probabilities.items(), key=lambda pair: -pair[1]) for one in result.classifications]
    if len(ranked) == 1:
        rows = [[key, f"{value:.3f}"] for key, value in ranked[0]]
        output.print_table(["class", "probability"], rows, right=["probability"])
        return
    rows = [
        [name, first, f"{value:.3f}", f"{second} {other:.3f}"]
        for name, ((first, value), (second, other), *_) in zip(result.names, ranked, strict=True)
    ]
    output.print_table(["image", "class", "probability", "next"], rows, right=["probability"])


def _print_findings(result: ClassifiedImages) -> None:
    """Probabilities and thresholds; scores where a class has no probability to compare with its threshold."""
    findings = [finding for of_image in result.findings for finding in of_image.values()]
    as_scores = any(
        one.probability is None or (one.threshold is not None and one.threshold_probability is None)
        for one in findings
    )
    rows = []
    for name, of_image in zip(result.names, result.findings, strict=True):
        ranked = sorted(of_image.items(), key=lambda pair: -pair[1].score)
        for i, (key, one) in enumerate(ranked):
            value, limit = (
                (one.score, one.threshold) if as_scores else (one.probability, one.threshold_probability)
            )
            present = "" if one.present is None else "yes" if one.present else "no"
            rows.append([name if i == 0 else "", key, _number(value), _number(limit), present])
    columns = ["image", "finding", "score" if as_scores else "probability", "threshold", "present"]
    output.print_table(columns, rows, right=columns[2:4])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _present(findings: dict[str, Finding]) -> list[str]:
    return [name for name, finding in findings.items() if finding.present]


def _plain(finding: Finding) -> str:
    return f"{finding.score if finding.probability is None else finding.probability:.6f}"


def _basis(result: ClassifiedImages, model: str) -> str:
    """How the probabilities came about, in one sentence."""
    decisions = result.question.decisions
    if decisions is None or decisions.temperature is None:
        remedy = ""
        if Path(model, "recipe.yaml").is_file() and not result.question.is_new:
            remedy = f"; it is measured by domainclip eval {shlex.quote(model)} --against base --suite core"
        return f"probabilities are not calibrated: calibration of these classes was not measured{remedy}"
    basis = f"probabilities have the temperature {decisions.temperature:.2f}, fitted on validation"
    if decisions.calibration_error is None:
        return basis
    return (
        f"{basis}; expected calibration error then: {decisions.calibration_error:.3f} on "
        f"{decisions.calibration_items} items of the {decisions.calibration_split} split"
    )
