"""The process that decodes with GDCM: `python -m domainclip.data.dicom.gdcm_process`.

It reads requests from its standard input, a line of JSON and the compressed bytes each, and answers with a
line of JSON and the values. It ends with its input.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from typing import Any, BinaryIO

import numpy as np
from pydicom.pixels import get_decoder


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer every request of a stream."""
    while line := requests.readline():
        request = json.loads(line)
        values = _decode(request, requests.read(request["size"]))
        head = {"dtype": values.dtype.str, "shape": values.shape} if values is not None else {}
        answers.write(json.dumps(head).encode() + b"\n")
        if values is not None:
            answers.write(np.ascontiguousarray(values).tobytes())
        answers.flush()


def _decode(request: dict[str, Any], data: bytes) -> np.ndarray | None:
    """The values of a frame; None if it cannot be decoded."""
    try:
        decoder = get_decoder(request["syntax"])
        values: np.ndarray
        values, _ = decoder.as_array(data, index=0, decoding_plugin="gdcm", **request["options"])
    except Exception:  # GDCM and pydicom raise arbitrary exceptions
        return None
    return values


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends this one
    warnings.simplefilter("ignore")
    # The answers alone: what GDCM prints to standard output goes where its errors go.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, output)
