"""What an epoch shows of an item: every policy, the shares it promises, and that it is a pure function."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from domainclip import seeding
from domainclip.data.batching import caption_sampling
from domainclip.data.batching.batch import Pair
from domainclip.data.batching.caption_sampling import CaptionPool, TokenLimit, caption_pools, choose_caption
from domainclip.data.batching.pairs import Pairs
from domainclip.data.checks.captions import right_text_share
from domainclip.data.rows import Item, to_dataset
from domainclip.data.text.captions import REWRITES, Captions

REPORT = "Dr. Lee saw it. Lungs clear. No effusion."


def _items(*rows: dict[str, Any]) -> Any:
    made = []
    for number, row in enumerate(rows):
        texts = row.get("texts", ["a"])
        said = {"language": row.get("language", [""] * len(texts)), "labels": row.get("labels", [])}
        made.append(
            Item(
                id=str(number),
                image={"path": f"{number}.png", "bytes": None},
                texts=texts,
                group=str(number),
                truth=str(number),
                meta=row.get("meta", {}),
                split="train",
                location="row",
                **said,
            )
        )
    return to_dataset(made)


def _pool(row: dict[str, Any], fit: TokenLimit | None = None, **how: Any) -> dict[str, float]:
    (pool,) = caption_pools(_items(row), Captions.model_validate(how), fit)
    return dict(zip(pool.texts, pool.probabilities or [1 / len(pool.texts)] * len(pool.texts), strict=True))


def _near(shares: dict[str, float]) -> Any:
    return pytest.approx(shares, abs=1e-12)


THREE = {"texts": ["one", "two", "drei"], "language": ["en", "en", "de"]}


@pytest.mark.parametrize(
    ("row", "how", "expected"),
    [
        (THREE, {}, {"one": 1 / 3, "two": 1 / 3, "drei": 1 / 3}),
        (THREE, {"policy": "first"}, {"one": 1}),
        (THREE, {"languages": "balanced"}, {"one": 0.25, "two": 0.25, "drei": 0.5}),
        (THREE, {"languages": {"en": 1, "de": 3}}, {"one": 0.125, "two": 0.125, "drei": 0.75}),
        (THREE, {"languages": {"en": 1, "hi": 9}}, {"one": 0.5, "two": 0.5}),
        (THREE, {"languages": {"hi": 1}}, {"one": 0.25, "two": 0.25, "drei": 0.5}),
        (THREE, {"languages": "balanced", "policy": "first"}, {"one": 0.5, "drei": 0.5}),
        (
            {"texts": [REPORT]},
            {"policy": "sentence"},
            dict.fromkeys(("Dr. Lee saw it.", "Lungs clear.", "No effusion."), 1 / 3),
        ),
        # A sentence that both captions hold has both their shares.
        ({"texts": ["A b. C d.", "A b."]}, {"policy": "sentence"}, {"A b.": 0.75, "C d.": 0.25}),
        ({"texts": ["..."]}, {"policy": "sentence"}, {"...": 1}),
        (
            {"texts": ["a"], "labels": ["cat", "dog"]},
            {"templates": ["a {}", "the {}"]},
            {"a": 0.5, "a cat": 0.125, "the cat": 0.125, "a dog": 0.125, "the dog": 0.125},
        ),
        (
            {"texts": ["a"], "labels": ["cat"]},
            {"templates": ["a {}"], "template_share": 0.2},
            {"a": 0.8, "a cat": 0.2},
        ),
        ({"texts": ["a"], "labels": ["cat"]}, {"templates": ["a {}"], "template_share": 1}, {"a cat": 1}),
        ({"texts": [], "labels": ["cat"]}, {"templates": ["a {}"]}, {"a cat": 1}),
        (
            {"texts": ["a"], "labels": ["cat"]},
            {"templates": {"cat": ["a kitten"], "dog": ["a pup"]}},
            {"a": 0.5, "a kitten": 0.5},
        ),
        ({"texts": ["a"], "labels": ["cow"]}, {"templates": {"cat": ["a kitten"]}}, {"a": 1}),
        (
            {"texts": ["a"], "meta": {"rewrites": [["b", ""], ["c", ""]]}},
            {"rewrites": ["other"], "rewrite_share": 0.4},
            {"a": 0.6, "b": 0.2, "c": 0.2},
        ),
        ({"texts": ["a"], "meta": {"rewrites": []}}, {"rewrites": ["other"]}, {"a": 1}),
        ({"texts": []}, {}, {"": 1}),
    ],
)
def test_shares_by_hand(row: dict[str, Any], how: dict[str, Any], expected: dict[str, float]) -> None:
    assert _pool(row, **how) == _near(expected)


def test_all_kinds_together() -> None:
    row = {**THREE, "labels": ["cat"], "meta": {"rewrites": [["eins", "de"]]}}
    how = {
        "languages": "balanced",
        "templates": ["a {}"],
        "template_share": 0.2,
        "rewrites": ["r"],
        "rewrite_share": 0.5,
    }
    # 0.8 for captions, half of that said in other words; the languages share the other half.
    assert _pool(row, **how) == _near({"one": 0.1, "two": 0.1, "drei": 0.2, "eins": 0.4, "a cat": 0.2})


def test_the_draw_keeps_to_the_shares_and_is_pure() -> None:
    pool = CaptionPool(["a", "b", "c"], [0.7, 0.2, 0.1])
    drawn = [choose_caption(pool, seed, epoch, "x") for seed in range(30) for epoch in range(100)]
    tally = Counter(drawn)
    assert [round(tally[i] / len(drawn), 1) for i in range(3)] == [0.7, 0.2, 0.1]
    assert drawn == [choose_caption(pool, seed, epoch, "x") for seed in range(30) for epoch in range(100)]
    assert drawn != [choose_caption(pool, seed, epoch, "y") for seed in range(30) for epoch in range(100)]


def test_equal_shares_are_drawn_as_before_there_were_shares() -> None:
    (pool,) = caption_pools(_items({"texts": ["a", "b", "c"]}), Captions())
    assert pool.probabilities is None
    assert [choose_caption(pool, 1, e, 7) for e in range(50)] == [
        seeding.choose(1, e, 7, 3) for e in range(50)
    ]


def _count(texts: list[str]) -> list[int]:
    return [len(text.split()) + 2 for text in texts]  # as a tokeniser with a begin and an end


def test_windows_are_whole_sentences_that_fit_and_cover_all() -> None:
    text = "A b c. D e. F g h i. J."
    fit = TokenLimit(_count, 8)
    assert list(_pool({"texts": [text]}, fit, overlong="window")) == [
        "A b c. D e.",
        "D e. F g h i.",
        "F g h i. J.",
    ]
    assert list(_pool({"texts": [text]}, fit, overlong="window", max_tokens=6)) == [
        "A b c.",
        "D e.",
        "F g h i.",
        "J.",
    ]
    assert list(_pool({"texts": [text]}, TokenLimit(_count, 99), overlong="window")) == [text]
    assert list(_pool({"texts": [text]}, fit)) == [text]  # head: the tokeniser cuts it


@pytest.mark.parametrize("room", range(3, 20))
def test_a_window_always_fits_and_loses_no_word(room: int) -> None:
    text = "One two three four five six seven eight nine ten. Eleven. " + " ".join(f"w{i}" for i in range(30))
    windows = list(_pool({"texts": [text]}, TokenLimit(_count, room), overlong="window"))
    assert max(_count(windows)) <= room
    assert {word for window in windows for word in window.split()} == set(text.split())


def test_windows_without_spaces() -> None:
    text = "".join(chr(0x4E00 + i) for i in range(50))
    fit = TokenLimit(lambda texts: [len(one) + 2 for one in texts], 12)
    windows = list(_pool({"texts": [text]}, fit, overlong="window"))
    assert max(map(len, windows)) <= 10
    assert "".join(windows) == text


def _number(pair: Pair) -> int:
    return int(pair.captions[pair.shown])


def test_pairs_draw_from_the_pool_and_number_each_caption() -> None:
    items = _items(
        {"texts": ["Clear lungs. No effusion."]},
        {"texts": ["No effusion. Big heart."]},
        {"texts": ["Other."]},
    )
    pairs = Pairs(items, lambda picture: {}, pixels=False, captions=Captions(policy="sentence"))
    shown = {(i, pairs[e, i].text): _number(pairs[e, i]) for e in range(40) for i in range(3)}
    assert {text for i, text in shown if i == 0} == {"Clear lungs.", "No effusion."}
    assert shown[0, "No effusion."] == shown[1, "No effusion."]  # never each other's negatives
    assert (
        len({shown[0, "Clear lungs."], shown[0, "No effusion."], shown[1, "Big heart."], shown[2, "Other."]})
        == 4
    )
    assert [pairs[e, 0].text for e in range(9)] == [pairs.without_pixels({})[e, 0].text for e in range(9)]


def test_templates_that_make_two_pairs_say_the_same() -> None:
    items = _items({"texts": [], "labels": ["cat"]}, {"texts": ["Tom."], "labels": ["cat"]})
    pairs = Pairs(items, lambda picture: {}, pixels=False, captions=Captions(templates=["a {}"]))
    shown = {(i, pairs[e, i].text): _number(pairs[e, i]) for e in range(40) for i in range(2)}
    assert set(shown) == {(0, "a cat"), (1, "a cat"), (1, "Tom.")}
    assert shown[0, "a cat"] == shown[1, "a cat"] != shown[1, "Tom."]


def test_the_check_counts_the_texts_that_are_right_for_another_image() -> None:
    # Two cats with the caption "a cat" alone, made of their label: each text is right for the other image.
    items = _items({"texts": [], "labels": ["cat"]}, {"texts": [], "labels": ["cat"]})
    (first, second) = caption_pools(items, Captions(templates=["a {}"]))
    shares = [first.probabilities, second.probabilities]
    assert right_text_share([first.texts, second.texts], ["p", "q"], shares) == 1
    # One shows it with 0.2, the other with 0.5: right for the other image whatever that shows.
    rows = ({"texts": ["x"], "labels": ["cat"]}, {"texts": ["y", "a cat"]})
    one = caption_pools(_items(rows[0]), Captions(templates=["a {}"], template_share=0.2))
    other = caption_pools(_items(rows[1]), Captions())
    texts, shares = [one[0].texts, other[0].texts], [one[0].probabilities, other[0].probabilities]
    assert right_text_share(texts, ["p", "q"], shares) == pytest.approx((0.2 + 0.5) / 2)


def test_the_same_text_twice_in_an_item_is_one_caption_with_both_shares() -> None:
    assert right_text_share([["A", "a"], ["a"]], ["p", "q"]) == pytest.approx(1)
    assert right_text_share([[], ["a"]], ["p", "q"]) == 0


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"policy": "first"},
        {"policy": "sentence"},
        {"languages": {"de": 1.0}},
        {"languages": "balanced"},
        {"templates": ["a {}"], "template_share": 0.2},
        {"rewrites": ["other"], "rewrite_share": 0.3},
    ],
)
@pytest.mark.parametrize("text", ["One thing. Another thing.", ""])
def test_one_caption_is_a_pool_of_its_own_unless_something_divides_it(
    how: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"texts": [text], "language": ["en"], "labels": ["cat"], "meta": {REWRITES: [["else", "en"]]}}
    short = caption_pools(_items(row), Captions.model_validate(how))
    monkeypatch.setattr(caption_sampling, "_divides_captions", lambda options: True)
    assert list(short) == list(caption_pools(_items(row), Captions.model_validate(how)))
