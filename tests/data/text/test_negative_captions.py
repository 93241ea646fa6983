"""Rules that make a caption say something else: numbers in any writing, and where a rule holds back."""

from __future__ import annotations

import pytest

from domainclip.data.text.negative_captions import make_negatives


def _made(text: str, rule: str, language: str = "en", seeds: int = 40) -> set[str]:
    return {result for seed in range(seeds) for result in make_negatives(text, [rule], seed, language)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a 5 mm nodule", {"a 6 mm nodule", "a 4 mm nodule", "a 10 mm nodule", "a 2 mm nodule"}),
        ("a 5mm nodule", {"a 6mm nodule", "a 4mm nodule", "a 10mm nodule", "a 2mm nodule"}),
        ("2,5 cm", {"3,5 cm", "1,5 cm", "5,0 cm", "1,2 cm"}),
        ("0.5 cm", {"1.5 cm", "1.0 cm", "0.2 cm"}),
        ("by sam francis, 1962", {"by sam francis, 1963", "by sam francis, 1961"}),
        ("saturation 92%", {"saturation 184%", "saturation 46%"}),
        ("٥ مم", {"٦ مم", "٤ مم", "١٠ مم", "٢ مم"}),
        ("५ मिमी", {"६ मिमी", "४ मिमी", "१० मिमी", "२ मिमी"}),
        ("0 findings", {"1 findings"}),
        ("COVID-19, T2, L4/5, 12:30, 3-4 days, 1.2.3", set()),  # names and dates, not sizes
    ],
)
def test_numbers_in_any_writing(text: str, expected: set[str]) -> None:
    assert _made(text, "numbers") == expected


def test_counts_in_chinese_only_before_a_measure_word() -> None:
    made = _made("两只狗吃三明治", "numbers", "zh")
    assert made == {f"{count}只狗吃三明治" for count in "三四五六七八九"}


def test_a_denial_is_turned_round_before_anything_is_denied() -> None:
    assert _made("There is a nodule and no effusion.", "negation") == {"There is a nodule and effusion."}
    assert _made("Ein Hund mit einem Ball", "negation", "de") == {
        "Kein Hund mit einem Ball",
        "Ein Hund ohne einem Ball",
        "Ein Hund mit keinem Ball",
    }


def test_only_a_bare_name_is_denied_as_a_whole() -> None:
    assert _made("Pleural effusion", "negation") == {"No pleural effusion"}
    assert _made("MRI", "negation") == {"no MRI"}
    assert _made("Pleuraerguss", "negation", "de") == {"Ohne Pleuraerguss"}
    assert _made("Dogs play happily together outside", "negation") == set()
    assert _made("玩水的孩子。", "negation", "zh") == {"没有玩水的孩子。"}


def test_words_that_are_joined_or_next_to_each_other_stay() -> None:
    assert _made("black and white", "swap") == set()
    assert _made("pleural effusion", "swap") == set()
    assert _made("bread, butter", "swap") == set()
    assert _made("a cup under the table", "swap") == {"a table under the cup"}


def test_order_keeps_small_words_numbers_and_sides_in_place() -> None:
    for text in _made("two dogs chase cats without the left owner", "order"):
        words = text.split()
        assert (words[0], words[4], words[5], words[6]) == ("two", "without", "the", "left")
        assert sorted(words[1:4] + words[7:]) == ["cats", "chase", "dogs", "owner"]


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("two dogs chase cats without the left owner", (1, 2, 3, 7)),
        ("red square near shiny wall", (0, 1, 3, 4)),
    ],
)
def test_order_leaves_no_word_that_says_much_in_its_place(text: str, places: tuple[int, ...]) -> None:
    own = text.split()
    for seed in range(20):
        for made in make_negatives(text, ["order"], seed, "en"):
            words = made.split()
            assert all(words[at] != own[at] for at in places)


def test_order_in_a_script_without_spaces_moves_every_piece() -> None:
    text = "玩水的孩子在海边"
    for seed in range(20):
        for made in make_negatives(text, ["order"], seed, "zh"):
            assert sorted(made) == sorted(text)
            assert not any(made[at : at + 2] == text[at : at + 2] for at in range(0, 8, 2))


@pytest.mark.parametrize(
    ("language", "text"),
    [("ru", "Справа выпота нет"), ("uk", "Праворуч випоту немає"), ("pl", "Brak płynu opłucnowego")],
)
def test_a_denial_of_its_own_is_not_moved(language: str, text: str) -> None:
    """Where word order is free, the same words with the denial elsewhere say the same."""
    assert _made(text, "swap", language) | _made(text, "order", language) == set()


def test_a_polite_denial_in_japanese() -> None:
    assert _made("右肺に結節はありません", "negation", "ja") == {"右肺に結節はあります"}
    assert _made("右肺に結節があります", "negation", "ja") == {"右肺に結節がありません"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("There is a (pleural effusion).", {"There is a (edema)."}),
        ("Pleural effusion and fever", {"Edema and fever"}),
        ("Pleural fluid", set()),
    ],
)
def test_the_name_of_a_class_of_several_words(text: str, expected: set[str]) -> None:
    given = ["pleural effusion"], ["Pleural effusion", "edema"]
    assert set(make_negatives(text, ["classes"], 0, "en", *given)) == expected


def test_rules_take_turns() -> None:
    text = "A dog in the left garden in 1998"
    rules = ["laterality", "numbers", "negation"]
    first = [list(make_negatives(text, rules, seed, "en"))[:3] for seed in range(10)]
    for three in first:
        assert sum("right" in one for one in three) == 1
        assert sum("1998" not in one for one in three) == 1
    assert len({tuple(three) for three in first}) > 3
