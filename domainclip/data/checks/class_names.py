"""Checks of class names: one name in several spellings, and names that say nothing in a prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from domainclip.data.checks import tallies
from domainclip.data.checks.findings import Finding
from domainclip.data.corpus import Corpus
from domainclip.data.schema import SPLITS
from domainclip.data.text.class_names import NameKind, alike, kind, quoted

_MAX_GROUPS = 10  # of similar classes that are listed
_NO_PROMPT = "no model knows what such a name stands for"
_PROMPTS = 'write them out in the card, classes: {{"{}": "a photo of a …"}}'
_FAULTS: dict[NameKind, tuple[str, str]] = {
    "number": ("numbers", f"{_NO_PROMPT}: {_PROMPTS}"),
    "wordnet": ("WordNet ids", f"{_NO_PROMPT}: {_PROMPTS}"),
    "missing": (
        "what a table writes for a missing value",
        "leave these cells blank, so that no class is made",
    ),
    "wrapper": (
        "names of folders around the class folders",
        "set corpus.path to the folder that holds one folder for each class, or corpus.columns.labels to the "
        "column with the classes",
    ),
}


def class_names(corpus: Corpus) -> Iterator[Finding]:
    """Labels with one name in two spellings, names that say nothing, and a corpus with a single class."""
    tally = sum((tallies.count_labels(corpus.splits[name]) for name in SPLITS), Counter[str]())
    # If the column was mistaken for another, a label that is no class may be a person's name.
    showable = set(corpus.classes) | (set(tally) if corpus.card.names_may_show else set())
    yield from _alike(sorted(showable | set(tally)), showable, tally)
    yield from _empty_names(corpus, sorted(showable), tally)
    if len(tally) == 1 and tally.total() > 1 and kind(next(iter(tally))) != "wrapper":
        yield Finding(
            "warning",
            f"all {tally.total()} labelled items have one class: there is nothing to classify; check "
            "corpus.columns.labels or, where classes are folders, that corpus.path holds one for each class",
            "single_class",
            tally.total(),
        )


def _alike(names: Sequence[str], showable: set[str], tally: Counter[str]) -> Iterator[Finding]:
    for group in alike(names)[:_MAX_GROUPS]:
        # A label that is a class but for its spelling is no person's name either.
        which = f"classes {quoted(group)}" if showable.intersection(group) else f"{len(group)} labels"
        items = sum(tally[name] for name in group)
        yield Finding(
            "warning",
            f"{which} differ only in capitals, spaces, hyphens, underscores or Unicode form, and are counted "
            f"as {len(group)}: give the {items} items one label",
            "similar_classes",
            items,
        )


def _empty_names(corpus: Corpus, names: Sequence[str], tally: Counter[str]) -> Iterator[Finding]:
    captions = {
        text for split in SPLITS for text in tallies.names_among_captions(corpus.splits[split], names)
    }
    # Where the card writes the prompts out, and no caption is made of the labels, the name does not matter.
    used = [
        name
        for name in names
        if name in captions
        or corpus.card.captions.templates
        or (name in corpus.classes and any(name in text for text in corpus.classes[name].positive))
    ]
    for fault, (what, remedy) in _FAULTS.items():
        members = [name for name in used if kind(name) == fault]
        if not members or not _says_nothing(fault, members, used):
            continue
        if remedy.startswith(_NO_PROMPT) and captions.intersection(members):
            remedy = f"{_NO_PROMPT}: rename these labels, which are captions as well"
        yield Finding(
            "warning",
            f"{len(members)} of {len(names)} classes are {what} ({quoted(members, 3)}): "
            + remedy.format(members[0]),
            f"{fault}_classes",
            sum(tally[name] for name in members),
        )


def _says_nothing(fault: NameKind, members: Sequence[str], names: Sequence[str]) -> bool:
    """Whether the names are of this kind: "all" or "train" among other classes may be a class of its own."""
    return fault != "wrapper" or len(members) == len(names)
