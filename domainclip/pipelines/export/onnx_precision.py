"""ONNX graphs in fp16 and int8, by onnxruntime."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16

from domainclip.pipelines.export import onnx_graph
from domainclip.pipelines.export.request import Precision


def reduce(file: Path, precision: Precision) -> None:
    """Replace a graph in fp32 by one of lower precision; its inputs and outputs stay float32.

    fp16: all weights and operations that have it. int8: the weights of matrix products and of the token table
    as integers, activations quantized as they come (dynamic); convolutions stay, as onnxruntime has none for
    the CPU.
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
                op_types_to_quantize=["MatMul", "Gemm", "Gather"],
                per_channel=True,
                # Processors without VNNI add pairs of products in 16 bits, which 8-bit weights overflow.
                reduce_range=True,
                weight_type=QuantType.QInt8,
                use_external_data_format=whole.with_name(f"{file.name}.data").exists(),
            )
        finally:
            log.setLevel(level)
        _remove(whole)
        whole.with_name(f"{file.name}.data").unlink(missing_ok=True)


def _remove(file: Path) -> None:
    file.unlink()
    file.with_name(f"{file.name}.data").unlink(missing_ok=True)
