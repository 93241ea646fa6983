"""`--to sentence-transformers`: a folder that `SentenceTransformer` reads, for texts and PIL images."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from domainclip.models.hf_loading import quiet
from domainclip.models.saving import save_model
from domainclip.pipelines.export import facts
from domainclip.pipelines.export.form import ExportedModel, ExportForm
from domainclip.pipelines.export.record import Tokenizing
from domainclip.pipelines.export.source import ExportSource

_PACKAGE = "sentence_transformers.base.modules"
_NORMALIZE = "1_Normalize"
_SNIPPET = """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(folder)


def encode_images(images):
    return model.encode(images)


def encode_texts(texts):
    return model.encode(texts)
"""


@dataclass(frozen=True)
class SentenceTransformersForm(ExportForm):
    """The weights of transformers with the modules of sentence-transformers around them."""

    name: ClassVar[str] = "sentence-transformers"
    hub_library: ClassVar[str] = "sentence-transformers"
    tolerance: ClassVar[float] = 1e-5
    packages: ClassVar[str] = "'sentence-transformers>=6' pillow"
    snippet: ClassVar[str] = _SNIPPET

    def refusal(self, source: ExportSource) -> str:
        """It gives an image processor sizes of its own, which a tower of patches does not take."""
        if source.model.image_preprocessor.patch:
            return (
                f"family {source.model.family} reads images of any shape as patches, which "
                "sentence-transformers does not cut: use --to transformers"
            )
        return ""

    def write(self, source: ExportSource, folder: Path) -> dict[str, Any]:
        """The model, and the files that describe two modules: the towers, and the scaling to unit length."""
        save_model(source.model, folder)
        tokenizing = facts.tokenizing(source)
        _name_inputs(folder / "tokenizer_config.json", tokenizing)
        normalize = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
        (folder / _NORMALIZE).mkdir()
        files: dict[str, Any] = {
            "modules.json": [
                {"idx": 0, "name": "0", "path": "", "type": f"{_PACKAGE}.transformer.Transformer"},
                {"idx": 1, "name": "1", "path": _NORMALIZE, "type": f"{_PACKAGE}.normalize.Normalize"},
            ],
            "sentence_bert_config.json": _towers(tokenizing),
            "config_sentence_transformers.json": {
                "model_type": "SentenceTransformer",
                "prompts": {},
                "default_prompt_name": None,
                "similarity_fn_name": "cosine",
            },
            f"{_NORMALIZE}/config.json": normalize,
        }
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
        return {}

    def load(self, folder: Path) -> ExportedModel:
        """Through `SentenceTransformer` on the CPU."""
        return SentenceTransformersModel(folder)


class SentenceTransformersModel(ExportedModel):
    """A folder as `SentenceTransformer` loads it."""

    def __init__(self, folder: Path) -> None:
        with _quiet():
            import sentence_transformers

            self.library = f"sentence-transformers {sentence_transformers.__version__}"
            self.model = sentence_transformers.SentenceTransformer(
                str(folder), device="cpu", local_files_only=True
            )

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(n, d) float32 of unit length."""
        return self._encode(list(images))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(m, d) float32 of unit length."""
        return self._encode(list(texts))

    def _encode(self, inputs: list[Any]) -> np.ndarray:
        embeddings: np.ndarray = self.model.encode(inputs, show_progress_bar=False, convert_to_numpy=True)
        return embeddings


def _towers(tokenizing: Tokenizing) -> dict[str, Any]:
    """The options of the module that holds both towers."""
    how = {"method_output_name": "pooler_output"}
    return {
        "transformer_task": "feature-extraction",
        "modality_config": {
            "text": {"method": "get_text_features", **how},
            "image": {"method": "get_image_features", **how},
        },
        "module_output_name": "sentence_embedding",
        "max_seq_length": tokenizing.max_tokens,
        "do_lower_case": tokenizing.lower_case,
        "processing_kwargs": {"text": {"padding": tokenizing.padding}},
        "processor_kwargs": {"backend": "pil"},  # the same pixels on every machine
    }


def _name_inputs(file: Path, tokenizing: Tokenizing) -> None:
    """Let the tokenizer give what the text tower reads: a mask would hide padding that it was trained on."""
    config = json.loads(file.read_text(encoding="utf-8"))
    config["model_input_names"] = tokenizing.outputs
    file.write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf-8")


@contextmanager
def _quiet() -> Iterator[None]:
    log = logging.getLogger("sentence_transformers")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with quiet():
            yield
    finally:
        log.setLevel(level)
