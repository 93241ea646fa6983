"""`--to onnx`: both towers as ONNX graphs, with a tokenizer for the library tokenizers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import torch
from PIL import Image
from tokenizers import Tokenizer, normalizers

from domainclip.errors import ModelError
from domainclip.models.image_preprocessor import ImagePreprocessor
from domainclip.models.text_tokenizer import TextTokenizer
from domainclip.pipelines.export import onnx_graph, onnx_precision, record
from domainclip.pipelines.export.form import ExportedModel, ExportForm
from domainclip.pipelines.export.onnx_graph import IMAGE, TEXT
from domainclip.pipelines.export.record import ExportRecord
from domainclip.pipelines.export.source import ExportSource

_SNIPPET = '''\
import onnxruntime
from tokenizers import Tokenizer

image_tower = onnxruntime.InferenceSession(f"{folder}/image.onnx")
text_tower = onnxruntime.InferenceSession(f"{folder}/text.onnx")
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")  # truncates and pads
steps = export["image"]


def pixels(image):
    """Resized by Pillow, cropped from the centre, normalized."""
    if isinstance(steps["resize"], list):
        height, width = steps["resize"]
    else:
        width, height = (int(steps["resize"] * side / min(image.size)) for side in image.size)
    image = image.resize((width, height), steps["resample"])
    if steps["crop"]:
        height, width = steps["crop"]
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    values = np.asarray(image, np.float32) * steps["rescale"]
    return ((values - np.float32(steps["mean"])) / np.float32(steps["std"])).transpose(2, 0, 1)


def encode_images(images):
    return image_tower.run(None, {"pixel_values": np.stack([pixels(image) for image in images])})[0]


def encode_texts(texts):
    rows = tokenizer.encode_batch(list(texts))
    outputs = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    names = export["tokenizer"]["outputs"]
    inputs = {name: np.array([getattr(row, outputs[name]) for row in rows], np.int64) for name in names}
    return text_tower.run(None, inputs)[0]
'''


@dataclass(frozen=True)
class OnnxForm(ExportForm):
    """`image.onnx`, `text.onnx` and `tokenizer.json`, for onnxruntime and any other runtime of ONNX."""

    name: ClassVar[str] = "onnx"
    hub_library: ClassVar[str] = "onnx"
    tolerance: ClassVar[float] = 1e-4
    packages: ClassVar[str] = "onnxruntime tokenizers numpy pillow"
    snippet: ClassVar[str] = _SNIPPET

    def refusal(self, source: ExportSource) -> str:
        """A tower of images of any shape has no fixed input; tokenizers reads no other kind of tokenizer."""
        if source.model.image_preprocessor.patch:
            return (
                f"family {source.model.family} reads images of any shape as patches, for which there is no "
                "fixed input: use --to transformers"
            )
        if _backend(source.model.text_tokenizer) is None:
            return "its tokenizer has no form for the library tokenizers: use --to transformers"
        return ""

    def write(self, source: ExportSource, folder: Path) -> dict[str, Any]:
        """The graphs, in the precision of the form, and the tokenizer."""
        onnx_graph.write_towers(source.model, folder)
        for name in (IMAGE, TEXT):
            onnx_precision.reduce(folder / name, self.precision)
        write_tokenizer(source.model.text_tokenizer, folder / "tokenizer.json")
        inputs = list(source.model.text_tokenizer(["a"]))
        return {
            "opset": onnx_graph.OPSET,
            "image": {"file": IMAGE, "inputs": ["pixel_values"], "output": "image_embeds"},
            "text": {"file": TEXT, "inputs": inputs, "output": "text_embeds"},
        }

    def load(self, folder: Path) -> ExportedModel:
        """Through onnxruntime on the CPU."""
        return OnnxModel(folder, record.load(folder))


class OnnxModel(ExportedModel):
    """The two graphs, run by onnxruntime."""

    def __init__(self, folder: Path, about: ExportRecord) -> None:
        self.library = f"onnxruntime {onnxruntime.__version__}"
        self.about = about
        self.image, self.text = (_session(folder / name) for name in (IMAGE, TEXT))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        steps = about.image
        self.preprocessor = ImagePreprocessor(
            steps.resize, steps.crop, steps.resample, steps.rescale, tuple(steps.mean), tuple(steps.std)
        )

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(n, d) float32 of unit length."""
        steps = self.about.image
        pixels = np.stack([self.preprocessor(image)["pixels"] for image in images]).astype(np.float32)
        mean, std = (np.array(channels, np.float32) for channels in (steps.mean, steps.std))
        values = (pixels * np.float32(steps.rescale) - mean) / std
        embeddings: np.ndarray = self.image.run(None, {"pixel_values": values.transpose(0, 3, 1, 2)})[0]
        return embeddings

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(m, d) float32 of unit length."""
        rows = self.tokenizer.encode_batch(list(texts))
        outputs = {
            "input_ids": [row.ids for row in rows],
            "attention_mask": [row.attention_mask for row in rows],
            "token_type_ids": [row.type_ids for row in rows],
        }
        inputs = {name: np.array(outputs[name], np.int64) for name in self.about.tokenizer.outputs}
        embeddings: np.ndarray = self.text.run(None, inputs)[0]
        return embeddings


def write_tokenizer(tokenizer: TextTokenizer, file: Path) -> None:
    """Write a tokenizer with its truncation, its padding and, where the model needs it, lower case."""
    backend = _backend(tokenizer)
    assert backend is not None  # refused before
    hf_tokenizer = tokenizer.hf_tokenizer
    written = Tokenizer.from_str(backend.to_str())
    if tokenizer.lower_case:
        steps = [normalizers.Lowercase(), *([written.normalizer] if written.normalizer else [])]
        written.normalizer = normalizers.Sequence(steps)
    written.enable_truncation(tokenizer.max_tokens, direction=hf_tokenizer.truncation_side)
    written.enable_padding(
        direction=hf_tokenizer.padding_side,
        pad_id=hf_tokenizer.pad_token_id,
        pad_type_id=hf_tokenizer.pad_token_type_id,
        pad_token=hf_tokenizer.pad_token,
        length=tokenizer.max_tokens if tokenizer.fixed_length else None,
    )
    file.write_text(json.dumps(json.loads(written.to_str()), ensure_ascii=False), encoding="utf-8")


def _backend(tokenizer: TextTokenizer) -> Tokenizer | None:
    return getattr(tokenizer.hf_tokenizer, "backend_tokenizer", None)  # tokenizers in Python have none


def _session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises exceptions of its own, without a common class
        reason = str(error).splitlines()[0][:200]
        raise ModelError(f"{file.name}: onnxruntime does not read the graph: {reason}") from None
