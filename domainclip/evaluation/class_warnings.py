"""Warnings about the classes of a set: items that are left out, and classes that cannot be distinguished."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from domainclip.data.cards import Prompts
from domainclip.data.text.captions import normalise
from domainclip.data.text.class_names import alike, quoted
from domainclip.errors import did_you_mean
from domainclip.evaluation.base import EvaluationSet, ProbeResult
from domainclip.evaluation.metrics.labels import class_names

_SAME_NAME = (
    "differ only in capitals, spaces, hyphens, underscores or Unicode form: give them one name, or write "
    "different prompts in the card, under classes"
)
_SAME_PROMPTS = (
    "have the same prompts, so every image is as near to one as to the other: write different ones"
)


def class_warnings(data: EvaluationSet) -> list[str]:
    """One line for each thing that a metric of classification on the set would hide."""
    names, labels = class_names(data), list(data.items["labels"])
    if not names or not any(labels):
        return []
    found = [*_left_out(data, names, labels), *_without_items(data, names, labels)]
    same_names = alike(names)
    found += [f"classes {quoted(group)} {_SAME_NAME}" for group in same_names]
    same_prompts = [group for group in _same_prompts(data.classes) if group not in same_names]
    found += [f"classes {quoted(group)} {_SAME_PROMPTS}" for group in same_prompts]
    return [f"{data.name}: {text}" for text in found]


def answers_without_items(results: Sequence[ProbeResult]) -> list[str]:
    """A line where models gave answers to classes that no item has: how many, and their share of all.

    Such an answer is wrong, but no metric of a single class shows it.
    """
    errors = [result.diagnostics for result in results if result.diagnostics is not None]
    matrices = [found.confusion for found in errors if found.confusion is not None]
    if not matrices or len(matrices) < len(results):
        return []
    items = matrices[0].counts.sum()
    absent = [i for i in range(len(matrices[0].classes)) if not matrices[0].counts[i].any()]
    given = {i: [float(matrix.counts[:, i].sum()) for matrix in matrices] for i in absent}
    most = sorted((i for i in absent if any(given[i])), key=lambda i: -max(given[i]))
    if not most:
        return []
    models = [f" by model {i + 1}" for i in range(len(matrices))]
    if len(matrices) < 3:
        models = [""] if len(matrices) == 1 else [" by the base", " by the adapted model"]

    def counted(counts: Sequence[float]) -> str:
        parts = zip(counts, models, strict=True)
        return ", ".join(f"{count:.4g} ({count / items:.0%}){model}" for count, model in parts)

    shown = "; ".join(f'"{matrices[0].classes[i]}" {counted(given[i])}' for i in most[:5])
    more = f"; and {len(most) - 5} more" if len(most) > 5 else ""
    where = f"{results[0].probe} on {results[0].dataset}"
    return [f"{where}: of {items:.0f} answers, to classes that no item has: {shown}{more}"]


def _left_out(data: EvaluationSet, names: Sequence[str], labels: Sequence[Sequence[str]]) -> Iterator[str]:
    """Items that count for no class, by reason."""
    known = set(names)
    outside = Counter(label for row in labels for label in set(row) - known)
    if data.card.multi_label:
        if outside:
            items = sum(bool(set(row) - known) for row in labels)
            yield (
                f"{items} of {len(labels)} items have labels that are not among the {len(names)} classes, "
                "and count as negative for these"
            )
        return
    counts = [len(known.intersection(row)) for row in labels]
    reasons = {
        "whose label is not among the classes": sum(
            not n and bool(row) for n, row in zip(counts, labels, strict=True)
        ),
        "without a label": sum(not row for row in labels),
        "with several classes": sum(n > 1 for n in counts),
    }
    if left_out := sum(reasons.values()):
        parts = ", ".join(f"{n} {reason}" for reason, n in reasons.items() if n)
        yield f"{left_out} of {len(labels)} items are left out of classification: {parts}"
    present = {
        label for row, n in zip(labels, counts, strict=True) if n == 1 for label in known.intersection(row)
    }
    if len(present) == 1 and len(names) > 1:
        yield (
            "all items that count are of one class: accuracy is how often that class wins, and does not show "
            "whether classes are distinguished"
        )


def _without_items(
    data: EvaluationSet, names: Sequence[str], labels: Sequence[Sequence[str]]
) -> Iterator[str]:
    """The classes that no item has, with the label that each may stand for."""
    present = {label for row in labels for label in row}
    missing = [name for name in names if name not in present]
    if not missing:
        return
    # A label outside the classes may be a person's name.
    others = sorted(present - set(names)) if data.card.names_may_show else []
    hints = [did_you_mean(name, others) for name in missing[:5]]
    shown = [
        f'"{name}"' + (f" ({hint})" if hint.startswith("did") else "")
        for name, hint in zip(missing[:5], hints, strict=False)
    ]
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    yield f"no item has {len(missing)} of the {len(names)} classes: {', '.join(shown)}{more}"


def _same_prompts(classes: Mapping[str, Prompts]) -> list[list[str]]:
    """Groups of classes whose prompts are equal for a tokenizer that ignores capitals and spacing."""
    by_prompts: defaultdict[tuple[frozenset[str], ...], list[str]] = defaultdict(list)
    for name, prompts in classes.items():
        sides = (prompts.positive, prompts.negative)
        by_prompts[tuple(frozenset(map(normalise, texts)) for texts in sides)].append(name)
    return [sorted(group) for group in by_prompts.values() if len(group) > 1]
