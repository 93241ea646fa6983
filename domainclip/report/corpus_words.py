"""What a report calls the groups, the classes and the sets of a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domainclip.evaluation.verdicts import ComparisonRow
from domainclip.report.context import CorpusFacts, ReportContext


@dataclass(frozen=True)
class Words:
    """What a corpus calls its groups (plural) and a class (singular), and the name of the retention set."""

    groups: str = "groups"
    item_class: str = "class"
    retention_set: str = "general"


def words(context: ReportContext) -> Words:
    """The words of the corpus of a report."""
    corpus = context.corpus
    return Words(corpus.group_name or "groups", corpus.class_name or "class", context.retention_set)


def places(rows: Sequence[ComparisonRow], context: ReportContext) -> dict[str, str]:
    """The headings of the retention set, and of the first other set, which is the domain."""
    first = next((row.dataset for row in rows if row.dataset != context.retention_set), "")
    return {
        context.retention_set: _place("In general", context.retention, ""),
        first: _place("In the domain", context.corpus, first),
    }


def _place(heading: str, corpus: CorpusFacts | None, split: str) -> str:
    name = corpus.name if corpus else ""
    return f"{heading}: {', '.join(text for text in (name, split) if text)}" if name else heading
