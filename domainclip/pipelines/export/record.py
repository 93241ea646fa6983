"""`export.json`: what a program needs besides the weights, and how the export was checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from domainclip.config.strict_model import StrictModel
from domainclip.data.cards import Prompts
from domainclip.errors import ModelError

FILE = "export.json"


class Tokenizing(StrictModel):
    """How a text becomes token ids."""

    outputs: list[str]  # of the tokenizer, which the text tower reads
    padding: Literal["longest", "max_length"]
    max_tokens: int  # longer texts are truncated, special tokens included
    lower_case: bool  # whether a text is lower-cased first
    prefix: str  # learned tokens that stand before every text; empty: none
    # Whether texts that name a class hold further learned tokens, as `classes` writes them.
    inserts_by_class: bool


class ImageInput(StrictModel):
    """How an image becomes pixels: resized, cropped from the centre, times `rescale`, minus mean, by std."""

    size: tuple[int, int]  # height and width of the result
    resize: int | tuple[int, int] | None  # the shortest edge, or exactly height and width; null: patches
    crop: tuple[int, int] | None
    resample: int  # Pillow's number for the filter
    rescale: float
    mean: list[float]
    std: list[float]


class ComparedMetric(StrictModel):
    """A metric on the same items, of the run's model and of the exported one."""

    metric: str
    run: float
    exported: float


class Check(StrictModel):
    """How the exported model differs from that of the run, as its own library reads it."""

    library: str
    # Of an embedding's numbers, for images of the model's own size and texts of every length.
    largest_difference: float
    tolerance: float | None  # a larger difference is refused; null for reduced precision
    # The same for images of other shapes, which the library resizes in its own way.
    largest_difference_resized: float
    items: int
    items_of: str  # the validation split of the run, or generated images
    same_class: float | None  # share of the items with the same most probable class
    same_findings: float | None  # share of the findings with the same side of their threshold
    same_first_text: float | None  # share of the items with the same nearest text
    metrics: list[ComparedMetric]


class ExportRecord(StrictModel):
    """The content of `export.json`."""

    schema_version: Literal[1] = 1
    form: str
    precision: str
    domainclip: str  # version
    family: str
    width: int  # of the embeddings
    scale: float  # the inverse temperature: a logit is scale times cosine, plus bias
    bias: float | None
    tokenizer: Tokenizing
    image: ImageInput
    frames: int  # images of a study that the run pooled to one embedding
    multi_label: bool
    classes: dict[str, Prompts]  # as the tokenizer reads them
    thresholds: dict[str, float]  # by class: a finding is present where scale times margin reaches it
    temperature: float | None  # every logit is divided by it before softmax or sigmoid
    files: dict[str, Any] = {}  # facts of the form
    check: Check | None = None  # null: not checked


def load(folder: Path) -> ExportRecord:
    """The record of an exported folder.

    Raises: ModelError when it is missing or damaged.
    """
    try:
        return ExportRecord.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ModelError(f"{folder / FILE}: missing or damaged: export the run again") from None


def save(folder: Path, record: ExportRecord) -> None:
    """Write the record."""
    (folder / FILE).write_text(record.model_dump_json(indent=1), encoding="utf-8")
