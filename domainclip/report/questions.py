"""The questions that a reader asks of an adapted model, each with its answer in ordinary words.

A headline metric answers one question about one set: is the class named right, is the right caption found, is
the right image found. The first screen of a report consists of them; all other metrics are details.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from domainclip.evaluation.verdicts import BETTER, KEPT, NO_VERDICT, SAME, UNKNOWN, WORSE, ComparisonRow
from domainclip.report import phrasing
from domainclip.report.corpus_words import Words

_LARGE = 2  # probes whose questions are in the list; those of the others are folded
_SMALL = 0.095  # shares below it get a decimal
_LONGEST = 5  # questions in the paragraph at the top
_FEW_ANSWERS, _LARGE_CHANGE = 10, 0.1  # answers of equal influence; what they make of a share is explained
_OTHER_DIRECTION = ("image_to_text_", "text_to_image_")
_WORDS = {
    BETTER: "gained",
    WORSE: "lost",
    SAME: "no clear change",
    KEPT: "kept within the margin",
    UNKNOWN: "too few to tell",
    NO_VERDICT: "not judged",
}
# By probe and headline metric: the question in the domain and in general, and what counts as right.
_TEXTS = {
    ("zero_shot", "macro_accuracy"): (
        "Names the {item_class} right",
        "General recognition",
        "the class with the nearest prompts is the right one; mean over the classes",
    ),
    ("zero_shot", "accuracy"): (
        "Names the {item_class} right",
        "General recognition",
        "the class with the nearest prompts is the right one",
    ),
    ("zero_shot", "macro_auroc"): (
        "Tells with from without the {item_class}",
        "General recognition",
        "AUROC: how often an image with the class ranks before one without; mean over the classes",
    ),
    ("sources", "accuracy_within_sources"): (
        "Names the {item_class} right within each source",
        "General recognition",
        "mean over the pairs of source and class; chance is what the source alone gives away",
    ),
    ("sources", "auroc_within_sources"): ("Tells the {item_class} apart within each source", "", "AUROC"),
    ("sources", "accuracy_on_new_sources"): ("Names the {item_class} right on new sources", "", ""),
    ("sources", "auroc_on_new_sources"): ("Tells the {item_class} apart on new sources", "", "AUROC"),
    ("retrieval", "image_to_text_r1"): (
        "Caption search",
        "General caption search",
        "the first caption found for an image is a right one",
    ),
    ("retrieval", "text_to_image_r1"): (
        "Image search",
        "General image search",
        "the first image found for a caption is a right one",
    ),
    ("knn", ""): ("Names the {item_class} like the nearest labelled images", "General recognition", ""),
    ("linear_probe", ""): (
        "Names the {item_class} with a fitted linear classifier",
        "General recognition",
        "",
    ),
    ("few_shot", ""): ("Names the {item_class} after a few labelled examples", "General recognition", ""),
}


@dataclass(frozen=True)
class Answer:
    """One line of the first screen: a question about one set, and what the two models reach."""

    label: str
    meaning: str  # what counts as right; empty where the label says it
    before: str
    after: str  # empty for a single model
    chance: str
    interval: str  # of the change, 95 %; empty where there is none
    verdict: str  # in ordinary words; empty for a single model, or if the evaluation is not valid
    mark: str
    kind: str  # the verdict of the row, for the style
    note: str  # what may have been lost, or why there is no verdict
    sentence: str  # the same in full, with interval and p


@dataclass(frozen=True)
class Block:
    """The answers about one set."""

    heading: str
    answers: Sequence[Answer]


def asked(rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    """The rows that answer a question: headline metrics that can be judged; retrieval in both directions."""
    heads = {(row.probe, row.dataset): row.metric for row in rows if row.primary}
    wanted = {(*key, _swapped(metric)) for key, metric in heads.items()}
    return [
        row
        for row in rows
        if not row.part
        and (row.comparable or row.control_fault)
        and (row.primary or (row.probe, row.dataset, row.metric) in wanted)
    ]


def blocks(
    rows: Sequence[ComparisonRow], words: Words, places: Mapping[str, str]
) -> tuple[list[Block], list[Block]]:
    """The answers by set, of the first probes and of all others; `places` names the sets."""
    questions = asked(rows)
    leading = list(dict.fromkeys(row.probe for row in questions))[:_LARGE]
    large = [row for row in questions if row.probe in leading]
    rest = [row for row in questions if row.probe not in leading]
    return list(_blocks(large, words, places)), list(_blocks(rest, words, places))


def _blocks(rows: Sequence[ComparisonRow], words: Words, places: Mapping[str, str]) -> Iterator[Block]:
    sets = sorted(dict.fromkeys(row.dataset for row in rows), key=lambda name: name == words.retention_set)
    for name in sets:
        yield Block(
            places.get(name, f"On {name}"), [answer(row, words) for row in rows if row.dataset == name]
        )


def answer(row: ComparisonRow, words: Words) -> Answer:
    """The answer of one row."""
    domain, _, meaning = _text(row, words)
    before, after = amounts(row)
    return Answer(
        label=domain,
        meaning=meaning,
        before=before,
        after=after,
        chance="" if row.chance is None else _amount(row.chance, row),
        interval=change_interval(row),
        verdict=_word(row),
        mark=phrasing.MARKS.get(row.verdict or "", ""),
        kind=row.verdict or "",
        note=_note(row, words),
        sentence=phrasing.claim(row, words.retention_set),
    )


def lead(rows: Sequence[ComparisonRow], words: Words, valid: bool = True, trained: bool = True) -> list[str]:
    """The sentences at the top: what was gained, what was lost, how sure it is.

    Named are the first question, the same in general, and every other that changed, up to five. `trained`:
    whether one training run made the adapted model.
    """
    if not valid:
        return [
            "This evaluation is not valid: do not rely on the values below; none is reported as a change."
        ]
    questions = asked(rows)
    if not questions:
        return ["No headline metric was measured that can be judged: the tables have the descriptions."]
    inside = [row for row in questions if row.dataset != words.retention_set]
    outside = [row for row in questions if row.dataset == words.retention_set]
    firsts = [*inside[:1], *outside[:1]]
    changed = [row for row in questions if row.verdict in (BETTER, WORSE) and row not in firsts]
    chosen = firsts + sorted(changed, key=lambda row: row.verdict == BETTER)[: _LONGEST - len(firsts)]
    sentences = [_sentence(row, words) for row in questions if row in chosen]
    if any(row.adapted for row in questions) and not outside:
        sentences.append("What was lost outside the domain was not measured.")
    return [*sentences, _how_sure(questions[0], words, trained)]


def tally(rows: Sequence[ComparisonRow]) -> str:
    """The number of questions by outcome, such as "Of 6 questions: 1 gained, 2 lost, 3 no clear change"."""
    questions = [row for row in asked(rows) if row.verdict]
    if not questions:
        return ""
    counts = dict.fromkeys((*_WORDS.values(), "kept within the margin"), 0)
    for row in questions:
        counts[_word(row)] = counts.get(_word(row), 0) + 1
    named = ", ".join(f"{n} {word}" for word, n in counts.items() if n or word in ("gained", "lost"))
    return f"Of {len(questions)} question{'' if len(questions) == 1 else 's'}: {named}."


def amounts(row: ComparisonRow) -> tuple[str, str]:
    """The values of both models; the second is empty for a single one."""
    if row.adapted is None:
        return texts([row.base.value], row)[0], ""
    before, after = texts([row.base.value, row.adapted.value], row)
    return before, after


def texts(values: Sequence[float], row: ComparisonRow) -> list[str]:
    """Values of one metric in whole per cent; all with a decimal where one is small or two seem equal."""
    if any(math.isnan(value) for value in values) or not is_per_cent(row):
        return [_amount(value, row) for value in values]
    whole = [_per_cent(value, 0) for value in values]
    coarse = min(values) < _SMALL or len(set(whole)) < len(set(values))
    return [_per_cent(value, 1) for value in values] if coarse else whole


def _amount(value: float, row: ComparisonRow) -> str:
    """One value of the metric of this row: per cent for a share of right answers, else a number."""
    if math.isnan(value):
        return "undefined"
    if not is_per_cent(row):
        return phrasing.number(value, row.unit)
    return _per_cent(value, 1 if value < _SMALL else 0)


def is_per_cent(row: ComparisonRow) -> bool:
    """Whether the metric is a share of right answers; an AUROC or a correlation is not."""
    return row.unit == "share" and not any(
        name in row.whole for name in ("auroc", "auprc", "map", "ndcg", "f1")
    )


def points(value: float, row: ComparisonRow) -> str:
    """The size of a change: "2.4 points" of a share of right answers, else a number."""
    if not is_per_cent(row):
        return phrasing.number(value, row.unit)
    shown = f"{100 * value:.1f}".removesuffix(".0")
    return f"{shown}\u00a0point{'' if shown == '1' else 's'}"


def change_interval(row: ComparisonRow) -> str:
    """The 95 % interval of the change, "+1.2 to +4.0 points"; empty where it is undefined or not judged."""
    if row.difference is None or math.isnan(row.difference.low) or row.verdict in (UNKNOWN, NO_VERDICT):
        return ""
    if not is_per_cent(row):
        return phrasing.span(row.difference, row.unit, sign=True)
    ends = (
        f"{100 * value:+.1f}".replace("-", phrasing.MINUS)
        for value in (row.difference.low, row.difference.high)
    )
    return f"{' to '.join(ends)}\u00a0points"


def _sentence(row: ComparisonRow, words: Words) -> str:
    domain, general, _ = _text(row, words)
    label = general if row.dataset == words.retention_set else domain
    before, after = amounts(row)
    chance = "" if row.chance is None else f" (chance\u00a0{_amount(row.chance, row)})"
    values = f"{before}\u00a0→\u00a0{after}" if after else before
    note = _note(row, words)
    tail = note if row.verdict not in (BETTER, WORSE) and note else _word(row)
    return f"{label}: {values}{chance}{', ' if tail else ''}{tail}."


def _how_sure(first: ComparisonRow, words: Words, trained: bool) -> str:
    has_groups = first.groups != first.n or words.groups != "groups"
    groups = f"{first.groups} {words.groups}" if has_groups else f"{first.n} items"
    if first.adapted is None:
        return f"One model, measured on {groups}; none is compared."
    return f"One training run, {groups}." if trained else f"Measured on {groups}."


def _word(row: ComparisonRow) -> str:
    return _WORDS.get(row.verdict or "", row.verdict or "")


def _note(row: ComparisonRow, words: Words) -> str:
    """What may have been lost, or why there is no verdict."""
    if row.verdict == UNKNOWN:
        return (
            f"too few {words.groups} to tell" if "caption" not in row.too_few else "too few captions to tell"
        )
    if row.verdict == NO_VERDICT:
        return "not judged, since a control failed" if row.control_fault else "not judged"
    if row.verdict in (BETTER, WORSE) or row.difference is None or not row.verdict:
        return ""
    lost = row.at_most_lost
    word = _word(row) if row.verdict != SAME else ""
    bound = f"at most {points(lost, row)} lost (95\u00a0%)" if lost else ""
    is_few = row.effective_answers < _FEW_ANSWERS and abs(row.difference.value) >= _LARGE_CHANGE
    few = "a few captions make most of the change" if is_few else ""
    return ", ".join(text for text in (word, bound, few) if text) or _word(row)


def _text(row: ComparisonRow, words: Words) -> tuple[str, str, str]:
    """The question in the domain and in general, and what counts as right."""
    known = _TEXTS.get((row.probe, row.metric)) or _TEXTS.get((row.probe, ""))
    if known is None:
        name = phrasing.title(row)
        return name[:1].upper() + name[1:], f"In general, {name}", ""
    item_class = "class" if row.dataset == words.retention_set else words.item_class
    return known[0].format(item_class=item_class), known[1], known[2]


def _swapped(metric: str) -> str:
    one, other = _OTHER_DIRECTION
    return metric.replace(one, other) if metric.startswith(one) else metric


def _per_cent(share: float, decimals: int) -> str:
    return f"{100 * share:.{decimals}f}\u00a0%"
