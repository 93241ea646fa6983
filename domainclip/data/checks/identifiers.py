"""Check of captions for what may identify a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from domainclip.data.checks.findings import MAX_LOCATIONS, Finding
from domainclip.data.corpus import Corpus
from domainclip.data.schema import SPLITS
from domainclip.data.text.identifiers import count_by_kind, find_identifiers, listed

_MAX_ITEMS = 20_000  # of a split: the search takes a second for so many


def captions_with_identifiers(corpus: Corpus) -> Iterator[Finding]:
    """Captions that hold what may identify a person, by kind; not where the card rules out persons.

    Of a large split, items at equal distances are searched.
    """
    if corpus.card.privacy.identifiers == "none":
        return
    counts: Counter[str] = Counter()
    where: list[str] = []
    searched = 0
    for split in SPLITS:
        items = corpus.splits[split]
        step = max(1, len(items) // _MAX_ITEMS)
        columns = zip(items["id"][::step], items["texts"][::step], strict=True)
        for id, texts in columns:
            found = Counter(kind for text in texts for kind in count_by_kind(find_identifiers(text)))
            searched += len(texts)
            counts += found
            if found:
                where.append(corpus.locations.get(id, "item"))
    if counts:
        yield Finding(
            "warning",
            f"{len(where)} items have captions that may identify a person ({listed(counts)}, of {searched} "
            f"searched); first: {', '.join(where[:MAX_LOCATIONS])}; such a search does not find everything: "
            "remove them, or replace them with domainclip data prepare --identifiers redact",
            "identifiers",
            len(where),
            tuple(where),
        )
