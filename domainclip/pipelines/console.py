"""Progress lines of the first process, on standard error."""

from __future__ import annotations

import sys

from domainclip.distributed import collectives


def say(text: str, quiet: bool) -> None:
    if not quiet and collectives.rank() == 0:
        print(text, file=sys.stderr, flush=True)
