"""GDCM in a process of its own: a broken stream makes it abort the process, and it prints to the terminal.

A file costs one decoding then, instead of the run, and no line breaks into the progress line.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from typing import IO, Any

import numpy as np

_MODULE = "domainclip.data.dicom.gdcm_process"
_PATIENCE = 5  # seconds, for the process to end after its input
# What GDCM and its JPEG codecs print, by the beginnings of the lines.
_MESSAGES = {
    "corrupt JPEG data": (b"Corrupt JPEG data", b"Premature end of JPEG file"),
    "JPEG of 12 bits, tried as 8 first": (b"Unsupported JPEG data precision", b"Invalid SOS parameters"),
}
MESSAGE_KINDS = (*_MESSAGES, "another message")


class DecoderStopped(RuntimeError):
    """The process of the decoder ended, or could not decode the stream."""


class _Decoder:
    """The process, with its pipes; it ends when this process does."""

    def __init__(self) -> None:
        self.owner = os.getpid()  # a forked process shares the pipes, and starts its own decoder
        self.printed: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.printed,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )

    def decode(self, syntax: str, data: bytes, options: dict[str, Any]) -> np.ndarray:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        request = {"syntax": syntax, "options": options, "size": len(data)}
        stdin.write(json.dumps(request).encode() + b"\n" + data)
        stdin.flush()
        head = json.loads(stdout.readline())  # of a process that aborted: nothing, a ValueError
        if not head:
            raise DecoderStopped
        dtype, shape = np.dtype(head["dtype"]), tuple(head["shape"])
        size = dtype.itemsize * int(np.prod(shape))
        return np.frombuffer(stdout.read(size), dtype).reshape(shape)  # of too few bytes: a ValueError

    def close(self) -> None:
        """End the process, if it is this one's; close the pipes."""
        for pipe in (self.process.stdin, self.process.stdout, self.printed):
            with suppress(OSError):  # the other end is closed
                if pipe is not None:
                    pipe.close()
        if self.owner == os.getpid():
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_PATIENCE)
            self.process.kill()

    def has_ended(self) -> bool:
        """Whether the process ended, or belongs to the process from which this one was forked."""
        return self.owner != os.getpid() or self.process.poll() is not None


_lock = threading.Lock()
_decoder: _Decoder | None = None


def decode(syntax: str, data: bytes, options: dict[str, Any]) -> np.ndarray:
    """The values of the frame in encapsulated `data`; `options` are those of pydicom's decoders.

    Raises: DecoderStopped if GDCM cannot decode it.
    """
    global _decoder
    with _lock:
        if _decoder is None or _decoder.has_ended():
            close()
            _decoder = _Decoder()
        try:
            return _decoder.decode(syntax, data, options)
        except (OSError, ValueError):  # the pipe is closed, for the process aborted
            close()
            raise DecoderStopped from None


@atexit.register
def close() -> None:
    """End the process of the decoder; the next call starts another."""
    global _decoder
    if _decoder is not None:
        _decoder.close()
    _decoder = None


def printed_bytes() -> int:
    """The length of what the process of the decoder has printed so far."""
    if _decoder is None or _decoder.owner != os.getpid():
        return 0
    return os.fstat(_decoder.printed.fileno()).st_size


def printed_kinds(start: int) -> list[bool]:
    """For each of MESSAGE_KINDS, whether a line of it was printed after the first `start` bytes."""
    end = printed_bytes()
    if _decoder is None or start == end:
        return [False] * len(MESSAGE_KINDS)
    start = start if start < end else 0  # of another process, which has ended
    lines = os.pread(_decoder.printed.fileno(), 2**16, start).splitlines()
    known = [any(line.startswith(texts) for line in lines) for texts in _MESSAGES.values()]
    every = tuple(text for texts in _MESSAGES.values() for text in texts)
    return [*known, any(line.strip() and not line.startswith(every) for line in lines)]
