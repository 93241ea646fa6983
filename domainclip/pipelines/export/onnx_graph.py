"""The towers of a model as ONNX graphs, by torch's exporter.

Shapes: b items of any number, l tokens of any number, d embedding width.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainclip.models.dual_encoder import DualEncoder

OPSET = 18  # since ONNX 1.13; the lowest that torch's exporter writes without converting
IMAGE, TEXT = "image.onnx", "text.onnx"
_ONE_FILE = 1_500_000_000  # bytes; a larger graph cannot be one protobuf, and has its weights beside it


class _ImageTower(nn.Module):
    def __init__(self, hf_model: Any) -> None:
        super().__init__()
        self.hf_model = hf_model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return F.normalize(self.hf_model.get_image_features(pixel_values=pixel_values).pooler_output, dim=-1)


class _TextTower(nn.Module):
    def __init__(self, hf_model: Any, names: list[str]) -> None:
        super().__init__()
        self.hf_model, self.names = hf_model, names

    def forward(self, *inputs: Tensor) -> Tensor:
        given = dict(zip(self.names, inputs, strict=True))
        return F.normalize(self.hf_model.get_text_features(**given).pooler_output, dim=-1)


def write_towers(model: DualEncoder, folder: Path) -> None:
    """Write `image.onnx` and `text.onnx` in fp32.

    `pixel_values` (b, 3, h, w), normalized, to `image_embeds` (b, d); the outputs of the tokenizer (b, l) to
    `text_embeds` (b, d); embeddings have unit length. Families that pad every text have a fixed l.

    Raises: OSError when they cannot be written.
    """
    hf_model = model.hf_base.eval()
    # Two rows: torch takes a dimension of one to be constant.
    pixels = torch.zeros(2, 3, *model.image_size)
    _write(_ImageTower(hf_model), {"pixel_values": pixels}, "image_embeds", {0: "batch"}, folder / IMAGE)
    texts = model.text_tokenizer(["a", "two words"])
    sizes = {0: "batch"} if model.fixed_length else {0: "batch", 1: "length"}
    _write(_TextTower(hf_model, list(texts)), texts, "text_embeds", sizes, folder / TEXT)


def save(graph: onnx.ModelProto, file: Path) -> None:
    """Write a graph, with its weights in a second file where one cannot hold them."""
    large = graph.ByteSize() > _ONE_FILE
    options: dict[str, Any] = {"location": f"{file.name}.data"} if large else {}
    onnx.save_model(graph, str(file), save_as_external_data=large, **options)


def _write(
    tower: nn.Module, inputs: dict[str, Tensor], output: str, sizes: dict[int, str], file: Path
) -> None:
    dimensions = {axis: torch.export.Dim(name) for axis, name in sizes.items()}
    shapes = tuple(dimensions for _ in inputs)
    size = sum(weight.numel() * weight.element_size() for weight in tower.parameters())
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            tower,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=[output],
            # The arguments of a tower that takes any number of them are one.
            dynamic_shapes=(shapes,) if isinstance(tower, _TextTower) else shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(str(file), external_data=size > _ONE_FILE)
    _remove_traces(file)


def _remove_traces(file: Path) -> None:
    """The exporter notes the lines of Python, with their paths, that each node comes from."""
    graph = onnx.load(str(file), load_external_data=False)
    for part in (graph, graph.graph, *graph.graph.node, *graph.graph.initializer, *graph.graph.value_info):
        del part.metadata_props[:]
    for node in graph.graph.node:
        node.ClearField("doc_string")
    for function in graph.functions:
        for node in function.node:
            del node.metadata_props[:]
    onnx.save_model(graph, str(file))


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, the exporter does not warn of libraries that are not needed."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
