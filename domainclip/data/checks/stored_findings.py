"""Findings of a large corpus, stored in the disk cache under the digest of all that they are computed from.

They are stored only for a corpus that is itself in the cache, since its entry is named by the state of every
file, and only when nothing outside these files, such as a missing decoder, can change them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from datasets import Dataset

from domainclip import disk_cache
from domainclip.data.checks.findings import Finding
from domainclip.data.checks.images import inspects_all
from domainclip.data.corpus import Corpus

_VERSION = 1  # raise it when the form of an entry changes
_ROWS = 10_000  # read at once
_PASSING = ("unreadable_images", "missing_decoder", "decoder_messages")  # another decoder removes them
_UNHASHED = ("image", "views")  # the entry of the corpus names their content


def stored_findings(
    corpus: Corpus, sample: int | None, settings: tuple[Any, ...], compute: Callable[[], list[Finding]]
) -> list[Finding]:
    """The findings of a corpus, from the cache where they are there.

    `sample` is the number of inspected images, as of `corpus_findings`; `settings` are all its other
    arguments, as JSON.
    """
    if not corpus.entry:
        return compute()
    card, items = corpus.card.model_dump(mode="json"), _digest(corpus.splits["train"])
    complete = inspects_all(corpus, sample)  # `data check` has inspected the other images since
    name = disk_cache.key("findings", _VERSION, corpus.entry, card, items, sample, complete, *settings)
    if (folder := disk_cache.find_files("corpora", name)) is not None:
        with suppress(OSError, ValueError, TypeError):
            rows = json.loads((folder / "findings.json").read_text())
            return [Finding(**row | {"where": tuple(row["where"])}) for row in rows]
    findings = compute()
    if not any(finding.code in _PASSING for finding in findings):
        about = {"what": f"findings of the checks of corpus {corpus.card.name}"}
        # A full disk costs the next command its time, and this one nothing.
        with suppress(OSError), disk_cache.writing_files("corpora", name, about) as draft:
            (draft / "findings.json").write_text(json.dumps([asdict(finding) for finding in findings]))
    return findings


def _digest(items: Dataset) -> str:
    """A digest of training items: curation may have selected or changed them since the corpus was read."""
    digest = hashlib.sha256()
    columns = [name for name in items.column_names if name not in _UNHASHED]
    for part in items.select_columns(columns).with_format("arrow").iter(_ROWS):
        for batch in part.combine_chunks().to_batches():
            digest.update(batch.serialize())
    return digest.hexdigest()
