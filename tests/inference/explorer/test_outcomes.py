"""Outcomes of two models, worked by hand; the typed classes; the state in the address."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainclip.data.cards import Prompts
from domainclip.errors import RecipeError
from domainclip.inference.explorer import typed_classes, view
from domainclip.inference.explorer.outcomes import NAMES, Compared
from domainclip.inference.explorer.view import View
from tests.inference.explorer.explored_runs import made_answers

UNKNOWN = float("nan")
# right and right, right and wrong, wrong and right, wrong and wrong with another answer, without a truth
COMPARED = Compared(
    made_answers([1, 1, 0, 0, UNKNOWN], [0, 0, 1, 1, 2], [1, 1, 4, 2, UNKNOWN]),
    made_answers([1, 0, 1, 0, UNKNOWN], [0, 1, 0, 2, 2], [1, 5, 1, 3, UNKNOWN]),
)


def test_outcomes_by_hand() -> None:
    assert [COMPARED.outcome(row) for row in range(5)] == [
        "both_right",
        "newly_wrong",
        "newly_right",
        "both_wrong",
        "unknown",
    ]
    assert np.flatnonzero(COMPARED.members["changed"]).tolist() == [1, 2, 3]
    counts = COMPARED.counts(np.arange(5))
    assert sum(count for name, count in counts.items() if name != "changed") == 5
    assert counts == {name: 3 if name == "changed" else 1 for name in NAMES}
    assert COMPARED.shares(np.arange(5)) == (4, 0.5, 0.5)
    assert COMPARED.shares(np.array([1, 4])) == (1, 1.0, 0.0)
    assert COMPARED.shares(np.array([4]))[0] == 0


def test_orders_by_hand() -> None:
    rows = np.arange(5)
    assert COMPARED.order(rows, "id").tolist() == [0, 1, 2, 3, 4]
    assert COMPARED.order(rows, "gain").tolist() == [2, 0, 3, 1, 4]  # changes of rank: 0, +4, -3, +1
    assert COMPARED.order(rows, "loss").tolist() == [1, 3, 0, 2, 4]
    findings = Compared(made_answers([1, 0, 1]), made_answers([0, 1, 1]))  # no ranks
    assert findings.order(np.arange(3), "gain").tolist() == [1, 2, 0]
    assert findings.order(np.arange(3), "loss").tolist() == [0, 2, 1]


def test_typed_classes() -> None:
    text = "cat\n\ndog: a dog | one dog\nnodule: a nodule ;; no nodule | clear lungs\nfree of: ;; ill"
    assert typed_classes.parse(text, ["a photo of a {}", "the {}"]) == {
        "cat": Prompts(positive=["a photo of a cat", "the cat"]),
        "dog": Prompts(positive=["a dog", "one dog"]),
        "nodule": Prompts(positive=["a nodule"], negative=["no nodule", "clear lungs"]),
        "free of": Prompts(positive=["a photo of a free of", "the free of"], negative=["ill"]),
    }
    assert typed_classes.parse("cat", [])["cat"].positive == ["a photo of a cat"]


@pytest.mark.parametrize(
    ("text", "templates", "message"),
    [
        ('""', [], "classes: line 1 has no name before the colon"),
        (": a cat", [], "classes: line 1 has no name before the colon"),
        ("cat\ndog\ncat: x", [], "classes: line 3 names a class a second time"),
        ("cat", ["a photo"], "must hold {} once"),
        ("\n".join(map(str, range(300))), ["a {}"] * 90, "classes: 27000 prompts are more than"),
    ],
)
def test_classes_that_cannot_be_read(text: str, templates: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        typed_classes.parse(text, templates)


NAME = st.sampled_from(["cat", "no finding", "T1: weighted", "Größe", "c&d"])
PROMPTS = st.lists(st.sampled_from(["a cat", "{x}", "un chat noir", "é: ü", "a;b"]), min_size=1, max_size=3)


@settings(max_examples=50)
@given(st.dictionaries(NAME, st.tuples(PROMPTS, st.one_of(st.just([]), PROMPTS)), min_size=1, max_size=4))
def test_classes_are_read_as_they_are_written(made: dict[str, tuple[list[str], list[str]]]) -> None:
    templates = ["a {}"]
    classes = {
        name: Prompts(positive=positive, negative=negative) for name, (positive, negative) in made.items()
    }
    # A class whose one prompt is its name is the name alone, which templates enclose.
    expected = typed_classes.suites.with_templates(classes, templates)
    assert typed_classes.parse(typed_classes.lines(classes, templates), templates) == expected


VIEWS = st.builds(
    View,
    words=st.text(st.characters(codec="utf-8", exclude_categories=["C"])).map(str.strip),
    like=st.integers(-1, 10**6),
    outcome=st.sampled_from(["", *NAMES]),
    label=st.sampled_from(["", "a & b", "50 %", "ä=1"]),
    start=st.integers(0, 10**6),
    classes=st.sampled_from(["", "cat\ndog: a | b ;; c"]),
)


@settings(max_examples=50)
@given(VIEWS)
def test_an_address_holds_the_whole_view(shown: View) -> None:
    address = shown.address()
    assert view.parse(address.removeprefix("?")) == shown
    assert View().address() == "?"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("page=itmes", 'page: unknown: did you mean "items"'),
        ("outcome=newlyright", "outcome: unknown: did you mean"),
        ("start=x", "start: not a whole number"),
        ("row=١", "row: not a whole number"),
    ],
)
def test_addresses_that_cannot_be(query: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        view.parse(query)


def test_ticks_and_rectangles() -> None:
    assert view.ticked("item=3&words=a&item=5&item=x&item=-1") == [3, 5]
    assert View(box="1,0.1,0.2,0.3,0.4").rectangle == (1, [0.1, 0.2, 0.3, 0.4])
    assert View().rectangle is None
    with pytest.raises(RecipeError, match="box: not a rectangle"):
        _ = View(box="1,2").rectangle
    assert view.parse("unknown=1&words=+a+").words == "a"
