"""The columns of a source, and its first rows: of a table, a data set or tar shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import datasets

from domainclip.data.files import delimited, tables, text_files
from domainclip.data.quarantine import ReadLog
from domainclip.data.readers.guesses.guess import Guess
from domainclip.data.readers.guesses.profiles import MAX_ROWS
from domainclip.data.readers.hub import Hub
from domainclip.data.readers.sources import tar_shards
from domainclip.data.readers.sources.shard_files import list_shards
from domainclip.data.text.lexicon import find_lexicon
from domainclip.errors import DataError

_BYTES = 200_000  # of a table, whose encoding is guessed
_LATIN = ("cp1252", "cp1250", "cp1254")
_OTHERS = "cp1251 cp1253 cp1255 cp1256 koi8_r gb18030 big5 shift_jis euc_jp euc_kr"
_ENCODINGS = [*_LATIN, *_OTHERS.split()]
_REMOTE_ROWS = 300  # of a data set on the Hub, or of remote shards
_DELIMITED = (".csv", ".tsv")
_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars"}


@dataclass(frozen=True)
class SourceRows:
    """Rows by column; `options` of the reader that were guessed to read them."""

    columns: list[str]
    rows: Sequence[Mapping[str, Any]]
    about: str  # in words: "1723 rows, 17 columns, separated by commas"
    options: tuple[Guess, ...] = ()
    images: tuple[str, ...] = ()  # columns that the source declares as images
    splits: tuple[str, ...] = ()  # that the source itself has


def read_table(file: Path) -> SourceRows:
    """The rows of a table, in the encoding that its bytes show.

    Raises: DataError for a file that is no table.
    """
    options: list[Guess] = []
    encoding = text_files.DEFAULT
    try:
        table = tables.read_table(file)
    except DataError:
        encoding = _encoding(file)
        if not encoding:
            raise
        table = tables.read_table(file, encoding)
        options.append(
            Guess("options.encoding", encoding, "its bytes are not UTF-8; check letters with accents")
        )
    about = f"{len(table.rows)} rows, {len(table.columns)} columns"
    if file.suffix.lower() in _DELIMITED:
        text, _ = text_files.read_text_file(file, encoding)
        separator = delimited.guess_separator(text, file.name)
        about += f", separated by {_SEPARATORS.get(separator, 'another character')}"
        about += f", {encoding.removesuffix('-sig').upper()}"
    return SourceRows(table.columns, table.rows, about, tuple(options))


def _encoding(file: Path) -> str:
    """The encoding of a table that is not UTF-8; "" where its bytes show none."""
    if file.suffix.lower() not in (*_DELIMITED, ".jsonl", ".ndjson", ".json"):
        return ""
    import charset_normalizer

    data = file.read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        best = charset_normalizer.from_bytes(data[:_BYTES], cp_isolation=_ENCODINGS).best()
        name = best.encoding if best else _LATIN[0]
        return max(_LATIN, key=lambda latin: _known_words(data, latin)) if name in _LATIN else name
    return ""


def _known_words(data: bytes, encoding: str) -> int:
    """How many words with accents are function words of a language, when the bytes are read so."""
    words = set(data[:_BYTES].decode(encoding, "replace").casefold().split())
    accented = {word for word in words if not word.isascii()}
    lexicon = find_lexicon(" ".join(words))
    return len(accented & lexicon.function_words)


def read_hub(path: str) -> SourceRows:
    """The columns of a data set, and its first rows without the images; a Hub id is streamed.

    Raises: DataError or HubError.
    """
    local = Path(path).is_dir()
    source = Hub(streaming=not local).source(path, ReadLog())
    first = next(iter(source.values()))
    images = tuple(name for name, kind in first.features.items() if isinstance(kind, datasets.Image))
    others = [name for name in first.features if name not in images]
    rows = list(islice(first.select_columns(others), MAX_ROWS if local else _REMOTE_ROWS)) if others else []
    rows = [_named(row, first.features) for row in rows]
    sizes = ", ".join(f"{len(part)} {name}" if local else str(name) for name, part in source.items())
    about = f"{len(first.features)} columns; splits: {sizes}"
    return SourceRows(list(first.features), rows, about, (), images, tuple(map(str, source)))


def _named(row: Mapping[str, Any], features: Any) -> dict[str, Any]:
    """The row with class names instead of numbers."""
    named = dict(row)
    for name, value in row.items():
        feature = features[name]
        if isinstance(feature, datasets.ClassLabel) and isinstance(value, int) and value >= 0:
            named[name] = feature.int2str(value)
    return named


def read_shards(path: str) -> SourceRows:
    """The columns and first rows of tar shards; remote ones are streamed.

    Raises: DataError.
    """
    shards, log = list_shards(path), ReadLog()
    remote = shards[0].remote
    rows: list[Mapping[str, Any]] = []
    for shard in shards:
        if remote:
            stream = tar_shards.stream_shard(shard, 0, log)
            rows += [row.values for row in islice(stream, _REMOTE_ROWS) if row is not None]
            break
        rows += [row.values for row in tar_shards.read_shard(shard, log)]
        if len(rows) >= MAX_ROWS:
            break
    options = (Guess("options.streaming", True, "the shards are on another machine"),) if remote else ()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    splits = tuple(sorted({shard.split for shard in shards if shard.split}))
    return SourceRows(columns, rows, f"{len(shards)} shards, {len(columns)} columns", options, (), splits)
