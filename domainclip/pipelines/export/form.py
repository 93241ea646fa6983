"""Contract of an export: a file format of another library, how it is written, and how that library reads it.

Legend: n images, m texts, d embedding width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from domainclip.pipelines.export.request import Precision
from domainclip.pipelines.export.source import TEXTS, ExportSource, Outputs, fixed_images


class ExportedModel(ABC):
    """An exported model as its own library loads it, with the preprocessing of that library."""

    library: str  # name and version

    @abstractmethod
    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(n, d) float32 of unit length, from RGB images of any shape."""

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(m, d) float32 of unit length, from texts that have their learned tokens."""

    def scale_and_bias(self) -> tuple[float, float] | None:
        """The inverse temperature and the bias (0 without one); None where the files hold neither."""
        return None

    def outputs(self, source: ExportSource) -> Outputs:
        """The outputs for the inputs of `source.outputs`."""
        texts = source.model.text_tokenizer.insert_learned_tokens(TEXTS)
        images = fixed_images(source.model.image_size)
        scale, bias = self.scale_and_bias() or (source.expected.scale, source.expected.bias)
        # The longest text apart: beside it, a library would pad all others to the full length.
        rows = np.concatenate([self.encode_texts(texts[:-1]), self.encode_texts(texts[-1:])])
        return Outputs(self.encode_images(images), rows, scale, bias)


@dataclass(frozen=True)
class ExportForm(ABC):
    """One format. Its file in this folder states which models fit, and how it is written and read."""

    precision: Precision = "fp32"

    name: ClassVar[str]  # of the option --to
    hub_library: ClassVar[str]  # `library_name` in the front matter of a card
    tolerance: ClassVar[float]  # largest difference of an embedding in fp32
    packages: ClassVar[str]  # what its users install
    snippet: ClassVar[str]  # Python that defines encode_images and encode_texts, run in the folder
    pools_frames: ClassVar[bool] = False  # whether its files hold how the images of a study are pooled

    def refusal(self, source: ExportSource) -> str:
        """Why a model does not fit; empty for one that fits."""
        return ""

    @abstractmethod
    def write(self, source: ExportSource, folder: Path) -> dict[str, Any]:
        """Write the files; returns facts for `export.json`.

        Raises: OSError when they cannot be written.
        """

    @abstractmethod
    def load(self, folder: Path) -> ExportedModel:
        """The model as the library reads it."""
