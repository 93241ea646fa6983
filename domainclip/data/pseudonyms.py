"""Pseudonyms that only this machine can make: ids and groups are replaced by keyed hashes.

A plain hash of a patient number is not secret, since all numbers can be tried; a keyed hash is.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from domainclip.data.schema import COLUMNS, IDS_IN_META, features
from domainclip.errors import DataError

if TYPE_CHECKING:
    from datasets import DatasetDict

VARIABLE = "DOMAINCLIP_SECRET"


def pseudonym_key() -> bytes:
    """The local key: $DOMAINCLIP_SECRET, or ~/.config/domainclip/secret, made on first use.

    The same key gives the same pseudonyms, also on another machine; deleting it cuts the link to the ids.

    Raises: DataError when it can be neither read nor created.
    """
    secret = os.environ.get(VARIABLE)
    if secret:
        return secret.encode()
    file = Path.home() / ".config" / "domainclip" / "secret"
    try:
        if not file.exists():
            _create(file)
        key = file.read_bytes().strip()
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}: make it readable, or set ${VARIABLE}") from None
    if not key:
        raise DataError(f"{file}: the secret is empty: delete the file, or set ${VARIABLE}")
    return key


def pseudonym(value: str, key: bytes) -> str:
    """HMAC-SHA256 of a value, 16 hex digits: equal values stay equal, and nothing else is revealed."""
    return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()[:16]


def with_pseudonyms(splits: DatasetDict, key: bytes) -> DatasetDict:
    """The splits with pseudonyms in place of ids, groups, truth keys, and ids in `meta`."""
    from datasets import DatasetDict

    pseudonymous = DatasetDict()
    for name, rows in splits.items():
        for column in ("id", "group", "truth"):
            values = [pseudonym(value, key) for value in rows[column][:]]
            rows = rows.remove_columns(column).add_column(column, values, feature=features()[column])
        metas = rows["meta"][:]
        if any(field in meta for meta in metas for field in IDS_IN_META):
            metas = [meta_with_pseudonyms(meta, key) for meta in metas]
            rows = rows.remove_columns("meta").add_column("meta", metas, feature=features()["meta"])
        pseudonymous[name] = rows.select_columns(list(COLUMNS))
    return pseudonymous


def meta_with_pseudonyms(meta: str, key: bytes) -> str:
    """The JSON of `meta` with pseudonyms in place of the ids of other items."""
    values = json.loads(meta or "{}")
    for name in IDS_IN_META:
        value = values.get(name)
        if isinstance(value, str):
            values[name] = pseudonym(value, key)
        elif isinstance(value, list):
            values[name] = [pseudonym(each, key) for each in value]
    return json.dumps(values, ensure_ascii=False)


def _create(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = file.with_name(f"secret.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as stream:
        stream.write(secrets.token_hex(32))
    try:
        # A link is atomic: of several processes that start together, one creates the file.
        os.link(draft, file)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
