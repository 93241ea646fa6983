"""The bundle for a bug report: checks and versions as JSON, without a path, a caption, a host or a user."""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from domainclip.errors import RecipeError
from domainclip.pipelines.doctor.check import Check
from domainclip.pipelines.doctor.environment import all_packages
from domainclip.report import redaction

SCHEMA_VERSION = 1
_REMOVED = "(removed)"
_SHORTEST = 3  # letters of a name; a shorter one would be found in many words
# Names that say nothing about anyone, and stand in the names of packages.
_COMMON = {"root", "user", "localhost", "local", "home", "admin", "ubuntu"}


def document(checks: Sequence[Check]) -> dict[str, Any]:
    """The checks; keys are added, and renamed only when `schema_version` rises."""
    return {
        "schema_version": SCHEMA_VERSION,
        "ok": all(check.level != "fault" for check in checks),
        "checks": [asdict(check) for check in checks],
    }


def write_bundle(checks: Sequence[Check], out: Path) -> Path:
    """Write the checks and the versions of all packages; only their owner may read the file.

    Raises: RecipeError when it cannot be written.
    """
    content = _without_private({**document(checks), "packages": dict(all_packages())}, private_words())
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(content, stream, ensure_ascii=False, indent=1)
            stream.write("\n")
    except OSError as error:
        raise RecipeError(f"{out}: cannot be written: {error.strerror}: name another file") from None
    return out


def private_words() -> list[str]:
    """The names of this machine and of its user, with the folders that they are in, longest first."""
    words = {socket.gethostname(), socket.getfqdn(), Path.home().name, str(Path.home()), str(Path.cwd())}
    words |= {os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME", "HOSTNAME")}
    with suppress(OSError, KeyError):  # a container without an entry for the user
        words.add(getpass.getuser())
    words |= set(Path.cwd().parts) | set(Path.home().parts)
    named = {word for word in words if len(word) >= _SHORTEST and word.casefold() not in _COMMON}
    return sorted(named, key=len, reverse=True)


def _without_private(value: Any, words: Iterable[str]) -> Any:
    """The value with every text removed that holds a path, or one of the words."""
    if isinstance(value, dict):
        return dict(_public_items(value, words))
    if isinstance(value, list):
        return [_without_private(inner, words) for inner in value]
    return value if not isinstance(value, str) or _is_public(value, words) else _REMOVED


def _public_items(value: dict[str, Any], words: Iterable[str]) -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if _is_public(name, words):  # a package that is called as its author
            yield name, _without_private(inner, words)


def _is_public(text: str, words: Iterable[str]) -> bool:
    named = any(re.search(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", text, re.IGNORECASE) for word in words)
    return not named and not any(redaction.search(text))
