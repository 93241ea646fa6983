"""The command `classify`: the classes or findings of images, by the classes of a run or by named ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from domainclip.evaluation import suites
from domainclip.inference.adapted_model import AdaptedModel
from domainclip.inference.classifier import Classification, Classifier, ClassQuestion, Findings, ask
from domainclip.inference.image_sources import SourceList, list_sources
from domainclip.inference.image_stream import UnreadableSource, encode_stream
from domainclip.inference.progress import CountProgress
from domainclip.inference.typed_files import TypedFile
from domainclip.pipelines.open_model import open_model


@dataclass(frozen=True, kw_only=True)
class ClassifyRequest:
    """The options of the command."""

    model: str  # a run folder, a model or checkpoint folder, or a Hub id
    files: Sequence[TypedFile]
    classes: str | None = None  # "cat,dog", or a YAML file
    templates: Sequence[str] = ()
    image_column: str | None = None
    quiet: bool = False


@dataclass(frozen=True)
class ClassifiedImages:
    """The answers for all readable images, in the order of the files; one of the two lists is empty."""

    question: ClassQuestion
    names: list[str] = field(default_factory=list)  # of the readable images
    classifications: list[Classification] = field(default_factory=list)
    findings: list[Findings] = field(default_factory=list)
    unreadable: list[UnreadableSource] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """How probabilities and thresholds came about, as JSON."""
        decisions = self.question.decisions
        calibrated = decisions is not None and decisions.temperature is not None
        return {
            "multi_label": self.question.multi_label,
            "classes": list(self.question.classes),
            "calibrated": calibrated,
            "temperature": decisions.temperature if decisions is not None else None,
            "calibration_error": decisions.calibration_error if decisions is not None else None,
            "thresholds": dict(decisions.thresholds) if decisions is not None else {},
        }


def classify(request: ClassifyRequest) -> ClassifiedImages:
    """The classes of all images that can be read, and the others with their reasons.

    Raises: RecipeError for wrong classes or templates; DataError for a file without images; ModelError for a
    model that cannot be loaded.
    """
    named = suites.parse_classes(request.classes) if request.classes else None
    model = open_model(request.model)
    question = ask(model.recorded, named, request.templates)
    listed = list_sources(request.files, request.image_column, model.rendering)
    return classify_sources(model, question, listed, request.quiet)


def classify_sources(
    model: AdaptedModel, question: ClassQuestion, listed: SourceList, quiet: bool = True
) -> ClassifiedImages:
    """The answers of a model to a question about the images of a list."""
    result = ClassifiedImages(question, notes=listed.notes)
    classifier = Classifier(model.encoder, question)
    with CountProgress(len(listed.sources), "images classified", quiet) as progress:
        for chunk in encode_stream(model.encoder, listed.sources, progress):
            result.names.extend(listed.sources[row].name for row in chunk.rows)
            if question.multi_label:
                result.findings.extend(classifier.find(chunk.embeddings))
            else:
                result.classifications.extend(classifier.classify(chunk.embeddings))
            faults = sorted(chunk.faults.items())
            result.unreadable.extend(UnreadableSource(listed.sources[row].name, why) for row, why in faults)
    return result
