"""ONNX graphs in fp16 and int8, by onnxruntime."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16

from domainclip.pipelines.export import onnx_graph
from domainclip.pipelines.export.onnx_graph import TEXT
from domainclip.pipelines.export.request import Precision


def reduce(file: Path, precision: Precision) -> None:
    """Replace a graph in fp32 by one of lower precision; its inputs and outputs stay float32.

    fp16: all weights and operations that have it. int8: the weights of matrix products, and the token table
    of a text tower, as unsigned integers with a scale for each channel; signed ones overflow on processors
    without VNNI. Activations are quantized as they come (dynamic). What costs most of the accuracy stays in
    float32: position embeddings, and the products that narrow a layer, whose inputs have few very large
    values. So do convolutions, which onnxruntime does not have in int8.
    """
    if precision == "fp16":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of weights that are too small for fp16
            graph = convert_float_to_float16(onnx.load(str(file)), keep_io_types=True)
        _remove(file)
        onnx_graph.save(graph, file)
    elif precision == "int8":
        whole = file.rename(file.with_name(f"fp32-{file.name}"))
        log = logging.getLogger()
        level = log.level
        log.setLevel(logging.ERROR)  # it recommends a step that is of no use for these graphs
        try:
            quantize_dynamic(
                str(whole),
                str(file),
                op_types_to_quantize=["MatMul", "Gemm", *(["Gather"] if file.name == TEXT else [])],
                per_channel=True,
                nodes_to_exclude=_narrowing(whole),
                weight_type=QuantType.QUInt8,
                use_external_data_format=whole.with_name(f"{file.name}.data").exists(),
            )
        finally:
            log.setLevel(level)
        _remove(whole)
        whole.with_name(f"{file.name}.data").unlink(missing_ok=True)


def _narrowing(file: Path) -> list[str]:
    """The names of the products with a constant matrix that has more rows than columns."""
    graph = onnx.load(str(file), load_external_data=False).graph
    shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    products = [(node.name, shapes.get(node.input[1])) for node in graph.node if node.op_type == "MatMul"]
    return [name for name, shape in products if shape is not None and shape[0] > shape[-1]]


def _remove(file: Path) -> None:
    file.unlink()
    file.with_name(f"{file.name}.data").unlink(missing_ok=True)
