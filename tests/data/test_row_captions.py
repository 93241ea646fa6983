"""From rows to captions: sections, languages, rewrites and labels, and what is told of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from domainclip.data.batching.pairs import Pairs
from domainclip.data.cards import Card
from domainclip.data.corpus import load_corpus
from domainclip.data.files import locations
from domainclip.data.images.decode import decode_image
from domainclip.data.quarantine import ReadLog
from domainclip.data.rows import SourceRow, standardise
from domainclip.data.text.captions import Captions
from domainclip.errors import DataError
from domainclip.models.loading import load_model
from tests.data.made_corpora import card, table
from tests.support.tiny_models import tiny_clip, tiny_siglip


def _train(said: Card, *rows: dict[str, Any], names: tuple[str, ...] = ()) -> tuple[Dataset, ReadLog]:
    log = ReadLog()
    sources = [
        SourceRow(
            row,
            f"row {n}",
            {"path": names[n] if names else f"{n}.png", "bytes": None},
            names[n] if names else str(n),
            "train",
        )
        for n, row in enumerate(rows)
    ]
    return standardise(sources, said.columns, said, log)["train"], log


REPORT = "HISTORY: Mr X.\nFINDINGS: Clear lungs.\nIMPRESSION: Normal."


def test_sections_are_captions_of_their_own_and_what_has_none_is_counted() -> None:
    said = card(columns={"texts": ["report"]}, captions={"policy": "section"})
    train, log = _train(
        said, {"report": REPORT}, {"report": "Two dogs."}, {"report": ""}, {"report": "Lungen: frei"}
    )
    assert train["texts"][:] == [["Clear lungs.", "Normal."], ["Two dogs."], ["Lungen: frei"]]
    assert log.notes == ["2 captions have none of the sections that the card names, and are used whole"]
    german = card(
        columns={"texts": ["report"]},
        captions={"policy": "section", "sections": ["findings"], "headings": {"findings": ["Befund"]}},
    )
    assert _train(german, {"report": "Befund: frei"})[0]["texts"][:] == [["frei"]]


def test_a_template_speaks_of_each_section() -> None:
    said = card(columns={"texts": ["report"]}, captions={"policy": "section", "template": "x-ray. {text}"})
    assert _train(said, {"report": REPORT})[0]["texts"][:] == [["x-ray. Clear lungs.", "x-ray. Normal."]]


def test_rewrites_are_kept_apart_and_shown_in_training_only() -> None:
    said = card(
        columns={"texts": ["t"], "languages": {"r2": "de"}, "meta": ["age"]},
        captions={"rewrites": ["r1", "r2"], "rewrite_share": 0.5},
    )
    train, _ = _train(said, {"t": "one", "r1": "eins", "r2": ["zwei", ""], "age": "40"})
    assert train["texts"][:] == [["one"]]  # what is measured with
    assert json.loads(train["meta"][0]) == {"age": "40", "rewrites": [["eins", ""], ["zwei", "de"]]}
    pairs = Pairs(train, lambda picture: {}, pixels=False, captions=said.captions)
    assert {pairs[e, 0].text for e in range(60)} == {"one", "eins", "zwei"}


def test_templates_make_captions_of_items_that_have_only_a_label() -> None:
    rows = ({"t": "", "l": "cat"}, {"t": "Tom.", "l": "cat"}, {"t": "", "l": ""})
    plain, log = _train(card(columns={"texts": ["t"], "labels": "l"}), *rows)
    assert (len(plain), [bad.location for bad in log.unusable]) == (1, ["row 0", "row 2"])
    said = card(columns={"texts": ["t"], "labels": "l"}, captions={"templates": ["a {}"]})
    train, log = _train(said, *rows)
    assert (train["texts"][:], [bad.location for bad in log.unusable]) == ([[], ["Tom."]], ["row 2"])


def test_rows_of_one_image_become_one_item() -> None:
    said = card(
        columns={"texts": ["t"], "language": "lang", "labels": "l"},
        captions={"merge_captions": True, "languages": "balanced"},
    )
    rows = (
        {"t": "a dog", "lang": "en", "l": "dog"},
        {"t": "another", "lang": "en", "l": ""},
        {"t": "ein Hund", "lang": "de", "l": "pet"},
        {"t": "a dog", "lang": "en", "l": "dog"},
    )
    train, _ = _train(said, *rows, names=("a.png", "a.png", "b.png", "a.png"))
    assert train["id"][:] == ["a.png", "b.png"]
    assert (train["texts"][:], train["language"][:]) == (
        [["a dog", "another"], ["ein Hund"]],
        [["en", "en"], ["de"]],
    )
    apart, _ = _train(
        card(columns={"texts": ["t"], "language": "lang"}), *rows, names=("a.png", "a.png", "b.png", "a.png")
    )
    assert len(apart) == 4
    one, _ = _train(said, *rows, names=("a.png",) * 4)
    assert (one["labels"][:], len(one["texts"][0])) == ([["dog", "pet"]], 3)
    pairs = Pairs(one, lambda picture: {}, pixels=False, captions=said.captions)
    drawn = [pairs[e, 0].text for e in range(400)]
    assert 0.4 < drawn.count("ein Hund") / 400 < 0.6  # a language each, not a caption each


def test_fits_settings_of_a_card_reach_the_decoder(tmp_path: Path) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    file = table(tmp_path, [{"file_name": f"{k}.png", "text": str(k), "split": "train"} for k in range(3)])
    values = np.array([[0, 1], [2, 4]], np.float32)
    fits.HDUList(
        [fits.PrimaryHDU(), fits.ImageHDU(values, name="SCI"), fits.ImageHDU(values.T, name="ERR")]
    ).writeto(tmp_path / "1.png", overwrite=True)
    settings = {"stretch": "linear", "percentiles": [0, 100], "hdu": "ERR"}
    corpus = load_corpus(card(images={"fits": settings}), str(file))
    images = corpus.splits["train"]["image"][:]
    assert np.asarray(decode_image(images[1]))[..., 0].tolist() == [[64, 255], [0, 128]]
    assert [locations.split_location(image["path"])[1] for image in (images[0], images[2])] == [{}, {}]
    # What a row says of its own file counts before.
    (tmp_path / "metadata.csv").write_text("file_name,text,split\n1.png#hdu=SCI,x,train\n")
    (image,) = load_corpus(card(images={"fits": settings}), str(file)).splits["train"]["image"][:]
    assert np.asarray(decode_image(image))[..., 0].tolist() == [[128, 255], [0, 64]]


def test_a_wrong_fits_setting_is_found_before_anything_is_read() -> None:
    with pytest.raises(ValueError, match="three bands"):
        card(images={"fits": {"bands": ["a", "b"]}})
    with pytest.raises(ValueError, match="the lower first"):
        card(images={"fits": {"percentiles": [99, 1]}})
    for value in (5, [1, 2, 3], ["a", "b"], None, "x"):
        with pytest.raises(ValueError, match="percentiles"):
            card(images={"fits": {"percentiles": value}})


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"max_tokens": 32}, "set captions.overlong=window"),
        ({"headings": {"findings": ["x"], "beurteilung": ["y"]}}, 'headings of "beurteilung"'),
        ({"templates": ["a cat"]}, "must hold {} once"),
        ({"languages": {"en": 0}}, "one of them above 0"),
        ({"languages": {"en": -1, "de": 2}}, "a weight is negative"),
    ],
)
def test_wrong_captions_keys(how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("{", "\\{").replace("}", "\\}")):
        Captions.model_validate(how)


def test_a_rewrites_column_that_is_not_there(tmp_path: Path) -> None:
    file = table(tmp_path, [{"file_name": "a.png", "text": "x", "text_2": "y"}])
    with pytest.raises(DataError) as caught:
        load_corpus(card(captions={"rewrites": ["text2"]}), str(file))
    assert str(caught.value) == (
        'metadata.csv: no column "text2" (corpus.captions.rewrites): did you mean "text_2"? there are: '
        "file_name, text, text_2."
    )


def test_another_way_of_drawing_is_another_corpus_to_resume_with(tmp_path: Path) -> None:
    file = table(tmp_path, [{"file_name": "a.png", "text": "x. y"}])
    said = [
        {},
        {"captions": {}},
        {"captions": {"policy": "sentence"}},
        {"captions": {"policy": "first"}},
        {"views": "first"},
    ]
    marks = [load_corpus(card(**keys), str(file)).fingerprint for keys in said]
    assert marks[0] == marks[1]
    assert len(set(marks)) == 4


LONG = {
    "latin": "dog " * 200,
    "right to left": "كلب يجري في الحديقة " * 40,
    "han": "两只狗在草地上奔跑" * 40,
    "emoji": "🐶🏃🌿" * 80,
    "decomposed": "e\u0301" * 200,
    "one word": "x" * 3000,
    "devanagari": "कुत्ता दौड़ रहा है " * 40,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_fault_30_the_end_of_text_is_kept_whatever_is_cut(text: str, tmp_path: Path) -> None:
    """Fault 30: long captions of every script keep the token that the text tower reads at."""
    model = load_model(str(tiny_clip(tmp_path / "clip")))
    ids = model.text_tokenizer([text, "a dog"])["input_ids"]
    assert ids.shape == (2, 77)
    assert int(ids[0, -1]) == int(ids[1].max()) == model.text_tokenizer.hf_tokenizer.eos_token_id
    assert model.text_tokenizer.count([text])[0] > 77


def test_fault_30_empty_and_blank_captions_are_tokenised_and_not_trained_on(tmp_path: Path) -> None:
    """Fault 30: nothing, NaN and blanks are no captions; a tokeniser survives them all the same."""
    for make in (tiny_clip, tiny_siglip):
        model = load_model(str(make(tmp_path / make.__name__)))
        assert model.text_tokenizer(["", "\u200b", "\n"])["input_ids"].shape[0] == 3
    rows = [{"t": value} for value in ("", "  ", "nan", float("nan"), None, "\n\t", "\u3000", "ok")]
    train, log = _train(card(columns={"texts": ["t"]}), *rows)
    assert train["texts"][:] == [["ok"]]
    assert [bad.reason for bad in log.unusable] == ["empty caption"] * 7
