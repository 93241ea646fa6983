"""An index in a file that a person named: embeddings, and the names of the images that they belong to.

It knows the files and folders that it was made of, so that it updates itself while they exist, and can be
searched without them. File names may name people: only the owner may read the file.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from domainclip.errors import DataError, ModelError, RecipeError
from domainclip.inference import vector_graph
from domainclip.inference.typed_files import TypedFile

APPLICATION_ID = 0x444C4958  # in the header of the file: it is one of ours
_MAGIC = b"SQLite format 3\0"
_ID_OFFSET = 68  # of the application id in the header
_TABLES = """
CREATE TABLE IF NOT EXISTS about (content TEXT);
CREATE TABLE IF NOT EXISTS items (name TEXT, digest TEXT);
"""


@dataclass(frozen=True)
class IndexContents:
    """What an index was made of."""

    fingerprint: str  # of the images' embeddings, as that of a store
    files: list[TypedFile]
    column: str | None  # of a table that names images
    items: list[tuple[str, str]]  # name and digest of each readable image

    @property
    def is_here(self) -> bool:
        """Whether all files and folders still exist."""
        return all(file.file.exists() for file in self.files)


def is_index(file: Path) -> bool:
    """Whether a file is an index that `search` wrote."""
    try:
        with file.open("rb") as stream:
            header = stream.read(_ID_OFFSET + 4)
    except OSError:
        return False
    return header.startswith(_MAGIC) and int.from_bytes(header[_ID_OFFSET:], "big") == APPLICATION_ID


def check_index_file(file: Path) -> None:
    """Refuse a file to write that exists and is no index, or lies in no folder: it may be an image.

    Raises: RecipeError.
    """
    if file.exists() and not is_index(file):
        raise RecipeError(f"--index {file}: exists already, and is no index: name another file")
    if not file.parent.is_dir():
        raise RecipeError(f"--index {file}: no such folder: make it first")


def check_approximate(index: Path | None, files: Sequence[TypedFile]) -> None:
    """Refuse an approximate search without its library, or without an index in a file, which its graph needs.

    `index` is the one to write, and `files` are what is searched.

    Raises: RecipeError.
    """
    vector_graph.check_installed()
    if index is None and not (len(files) == 1 and is_index(files[0].file)):
        raise RecipeError("--approximate: needs an index in a file: add --index FILE, or search --in one")


def write_contents(file: Path, contents: IndexContents) -> None:
    """Write what an index was made of into its file, whole or not at all.

    Raises: RecipeError when it cannot be written.
    """
    about = {"fingerprint": contents.fingerprint, "column": contents.column}
    about |= {"files": [asdict(one) for one in contents.files]}  # type: ignore[dict-item]
    try:
        with closing(sqlite3.connect(file, timeout=60)) as database:
            database.executescript(_TABLES)
            with database:
                database.execute("DELETE FROM about")
                database.execute("DELETE FROM items")
                database.execute("INSERT INTO about VALUES (?)", (json.dumps(about),))
                database.executemany("INSERT INTO items VALUES (?, ?)", contents.items)
    except sqlite3.Error as error:
        raise RecipeError(f"--index {file}: cannot be written: {error}") from None


def read_contents(file: Path, name: str, fingerprint: str) -> IndexContents:
    """What an index was made of, for a model whose embeddings have this fingerprint.

    Raises: ModelError for an index of another model; DataError for a damaged one.
    """
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            about = json.loads(database.execute("SELECT content FROM about").fetchone()[0])
            items = database.execute("SELECT name, digest FROM items ORDER BY rowid").fetchall()
        files = [TypedFile(**one) for one in about["files"]]
        contents = IndexContents(about["fingerprint"], files, about["column"], items)
    except (sqlite3.Error, ValueError, TypeError, KeyError):
        raise DataError(f"{name}: the index is damaged: delete it and make it again with --index") from None
    if contents.fingerprint != fingerprint:
        raise ModelError(f"{name}: an index of another model: make one with --in FOLDER --index FILE")
    return contents


def contents_of(
    fingerprint: str, files: Sequence[TypedFile], column: str | None, items: Sequence[tuple[str, str]]
) -> IndexContents:
    """The contents of an index; files are stored with their absolute paths."""
    absolute = [TypedFile(file.name, str(Path(file.path).absolute())) for file in files]
    return IndexContents(fingerprint, absolute, column, list(items))
