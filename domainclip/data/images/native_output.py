"""What compiled decoders print to the terminal: captured, so that it breaks no progress line, and counted.

libtiff prints a line for each odd tag, by C, where Python's sys.stderr is not involved: the file descriptor
itself is redirected for the time of the call.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_STDERR = 2
_lock = threading.Lock()  # the descriptor belongs to all threads
_lines = 0


def captured_lines() -> int:
    """The number of lines that were captured in this process."""
    return _lines


@contextmanager
def captured() -> Iterator[None]:
    """Capture what is written to the descriptor of standard error; lines of this program are passed on."""
    global _lines
    with _lock:
        with suppress(OSError, ValueError, AttributeError):  # a closed or replaced stream
            sys.stderr.flush()
        try:
            original = os.dup(_STDERR)
        except OSError:  # there is no standard error
            yield
            return
        try:
            with tempfile.TemporaryFile() as stream:
                os.dup2(stream.fileno(), _STDERR)
                try:
                    yield
                finally:
                    with suppress(OSError, ValueError, AttributeError):  # of another thread
                        sys.stderr.flush()
                    os.dup2(original, _STDERR)
                    stream.seek(0)
                    lines = stream.read().splitlines(keepends=True)
        finally:
            os.close(original)
        own = [line for line in lines if line.startswith(b"domainclip") or b"\r" in line or b"\x1b" in line]
        _lines += len(lines) - len(own)
        with suppress(OSError):
            os.write(_STDERR, b"".join(own))
