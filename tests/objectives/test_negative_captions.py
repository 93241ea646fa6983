"""Negative captions: the loss by hand and against sentence-transformers; which negatives a pair asks for."""

from __future__ import annotations

import random
from dataclasses import replace
from math import exp, log

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from domainclip import registry
from domainclip.data.text.captions import normalise
from domainclip.errors import RecipeError
from domainclip.objectives.base import Views
from domainclip.objectives.contrastive import Contrastive
from domainclip.objectives.negative_captions import NegativeCaptions
from tests.support.text_objectives import (
    batch,
    shown,
    slopes,
)

COUNTS, GROUP = [2, 0, 1, 2, 1, 0], [0, 1, 2, 2, 3, 4]


def test_hand_worked() -> None:
    # Two pairs at right angles, scale 1; the first has a negative at cosine 0.8 to its image.
    eye = torch.eye(2, dtype=torch.float64)
    said = torch.tensor([[[0.8, 0.6]], [[0.0, 0.0]]], dtype=torch.float64)
    views = Views(
        eye, eye, torch.tensor(1.0), extra_text=said, extra_text_mask=torch.tensor([[True], [False]])
    )
    plain = log(1 + exp(-1))
    first = log(1 + exp(-1) + exp(0.8 - 1))
    assert NegativeCaptions()(views).item() == pytest.approx((first + 3 * plain) / 4, abs=1e-12)
    # Shared, the second image refuses it too, at cosine 0.6.
    second = log(1 + exp(-1) + exp(0.6 - 1))
    shared = NegativeCaptions(shared=True)(views).item()
    assert shared == pytest.approx((first + second + 2 * plain) / 4, abs=1e-12)


@pytest.mark.parametrize("shared", [True, False])
def test_without_negatives_it_is_contrastive(shared: bool) -> None:
    views = batch(COUNTS, GROUP)
    nobody = replace(views, extra_text_mask=torch.zeros_like(views.extra_text_mask))
    torch.testing.assert_close(
        slopes(NegativeCaptions(shared=shared), nobody), slopes(Contrastive(), views), rtol=1e-12, atol=1e-14
    )
    # And with them it is another loss: the test above could not pass on a part that never looks.
    assert (NegativeCaptions(shared=shared)(views) - Contrastive()(views)).item() > 0.05


def test_shared_equals_sentence_transformers() -> None:
    views = batch([2] * 5)
    reference = MultipleNegativesRankingLoss.__new__(MultipleNegativesRankingLoss)
    torch.nn.Module.__init__(reference)
    MultipleNegativesRankingLoss.__init__(
        reference,
        torch.nn.Identity(),
        scale=4.0,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )
    columns = [views.image, views.text, views.extra_text[:, 0], views.extra_text[:, 1]]
    expected = reference.compute_loss_from_embeddings(columns, None)
    assert NegativeCaptions(shared=True)(views).item() == pytest.approx(expected.item(), abs=1e-7)


def test_anothers_negative_that_is_the_own_caption_is_none() -> None:
    """A left and a right effusion in one batch: the one's negative is the other's caption."""
    views = batch([1, 1, 1])
    said = views.extra_text.clone()
    said[0, 0] = views.text[1]
    twin = replace(views, extra_text=said)
    loss = NegativeCaptions(shared=True)
    cut = torch.tensor([[False], [True], [True]])
    # For image 1 it counts as if it were not there; for images 0 and 2 the text stands there twice.
    of_one = [replace(one, local_rows=slice(1, 2)) for one in (twin, replace(views, extra_text_mask=cut))]
    assert loss(of_one[0]).item() == pytest.approx(loss(of_one[1]).item(), abs=1e-12)


def test_a_negative_that_reads_like_the_caption_is_none() -> None:
    views = batch([1, 1])
    said = views.extra_text.clone()
    said[0, 0] = views.text[0]  # cut at the same token, as a swap behind the model's window
    mask = torch.tensor([[False], [True]])
    found = slopes(NegativeCaptions(), replace(views, extra_text=said))
    wanted = slopes(NegativeCaptions(), replace(views, extra_text=said, extra_text_mask=mask))
    torch.testing.assert_close(found, wanted)


# Captions in which each rule has one thing to do, and what it does, by hand.
TABLE = [
    ("en", "laterality", "Small left effusion.", "Small right effusion."),
    ("de", "laterality", "Erguss links.", "Erguss rechts."),
    ("fr", "laterality", "Opacité du lobe inférieur gauche.", "Opacité du lobe inférieur droite."),
    ("es", "laterality", "Derrame pleural izquierdo", "Derrame pleural derecho"),
    ("it", "laterality", "Versamento pleurico sinistro", "Versamento pleurico destro"),
    ("pt", "laterality", "Nódulo no pulmão esquerdo", "Nódulo no pulmão direito"),
    ("nl", "laterality", "Linker long", "Rechter long"),
    ("pl", "laterality", "Guzek w lewym płucu", "Guzek w prawym płucu"),
    ("cs", "laterality", "Uzel v levé plíci", "Uzel v pravé plíci"),
    ("ru", "laterality", "Узел в левом лёгком", "Узел в правом лёгком"),
    ("tr", "laterality", "Sağ akciğerde nodül", "Sol akciğerde nodül"),
    ("ar", "laterality", "عقدة في الرئة اليسرى", "عقدة في الرئة اليمنى"),
    ("he", "laterality", "קשרית בריאה הימנית", "קשרית בריאה השמאלית"),
    ("hi", "laterality", "बाएं फेफड़े में धब्बा", "दाएं फेफड़े में धब्बा"),
    ("zh", "laterality", "左肺上叶结节。", "右肺上叶结节。"),
    ("ja", "laterality", "左肺に結節あり", "右肺に結節あり"),
    ("ko", "laterality", "좌측 폐 결절", "우측 폐 결절"),
    ("sv", "laterality", "Nodul i vänster lunga", "Nodul i höger lunga"),
    ("en", "negation", "No pleural effusion.", "Pleural effusion."),
    ("en", "negation", "Pleural effusion.", "No pleural effusion."),
    ("en", "negation", "Heart size is normal.", "Heart size is not normal."),
    ("de", "negation", "Kein Pleuraerguss links.", "Pleuraerguss links."),
    ("fr", "negation", "Poumons sans opacité.", "Poumons avec opacité."),
    ("es", "negation", "Derrame pleural sin neumotórax.", "Derrame pleural con neumotórax."),
    ("it", "negation", "Versamento senza pneumotorace", "Versamento con pneumotorace"),
    ("pt", "negation", "Pulmões sem nódulos", "Pulmões com nódulos"),
    ("nl", "negation", "Geen pleuravocht.", "Pleuravocht."),
    ("pl", "negation", "Płuca bez zmian", "Płuca z zmian"),
    ("cs", "negation", "Srdce je normální", "Srdce není normální"),
    ("ru", "negation", "Лёгкие без выпота", "Лёгкие с выпота"),
    ("tr", "negation", "Akciğerde nodül", "Akciğerde nodül yok"),
    ("ar", "negation", "رجل مع كلب", "رجل بدون كلب"),
    ("hi", "negation", "बच्चे पानी में हैं।", "बच्चे पानी में नहीं हैं।"),
    ("zh", "negation", "未见胸腔积液", "可见胸腔积液"),
    ("ja", "negation", "左肺に結節あり", "左肺に結節なし"),
    ("en", "numbers", "Two dogs play.", "Three dogs play."),
    ("de", "numbers", "Zwei Hunde spielen.", "Drei Hunde spielen."),
    ("fr", "numbers", "Deux chiens jouent.", "Trois chiens jouent."),
    ("cs", "numbers", "Dvě děti si hrají.", "Tři děti si hrají."),
    ("hi", "numbers", "दो श्रमिक बैठते हैं।", "तीन श्रमिक बैठते हैं।"),
    ("en", "swap", "A dog beside a cat", "A cat beside a dog"),
    ("ar", "swap", "كلب على طاولة", "طاولة على كلب"),
    ("en", "classes", "chest x-ray, COVID-19 in a man", "chest x-ray, edema in a man"),
]


@pytest.mark.parametrize(("language", "rule", "text", "wanted"), TABLE)
def test_rules_by_hand(language: str, rule: str, text: str, wanted: str) -> None:
    classes = ["COVID-19", "edema"] if rule == "classes" else []
    part = NegativeCaptions(rules=[rule], classes=classes)
    found = {
        tuple(part.extra_texts(shown(text, languages=[language], labels=["covid-19"], seed=s)))
        for s in range(40)
    }
    assert found == {(wanted,)}


def test_there_are_eleven_languages_in_the_table() -> None:
    assert len({language for language, rule, _, _ in TABLE if rule == "laterality"}) >= 11
    assert len({language for language, rule, _, _ in TABLE if rule == "negation"}) >= 11


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "Wall thickening on the right and left."),  # turned round it is still true
        ("sw", "Mtoto anacheza"),  # no list of its words
        ("en", "zoom"),
        ("en", "."),
        ("zh", "气胸"),
    ],
)
def test_where_a_rule_is_in_doubt_there_is_no_negative(language: str, text: str) -> None:
    assert (
        NegativeCaptions(rules=["laterality", "numbers", "swap"]).extra_texts(
            shown(text, languages=[language])
        )
        == []
    )


def test_two_dogs_the_other_way_round_are_the_same_two_dogs() -> None:
    text = "A black dog and a white dog"
    found = {
        t
        for s in range(60)
        for t in NegativeCaptions(rules=["swap"]).extra_texts(shown(text, languages=["en"], seed=s))
    }
    assert "A white dog and a black dog" not in found
    assert "A dog dog and a white black" in found


def test_the_column_comes_first_and_rules_fill_up() -> None:
    pair = shown("A dog.", languages=["en"], negatives="['A cat.', 'a  DOG.']")
    found = NegativeCaptions(column="negatives", per_pair=2, rules=["negation"]).extra_texts(pair)
    assert found == ["A cat.", "No dog."]
    assert NegativeCaptions(column="negatives", rules=[]).extra_texts(
        shown("A dog.", negatives="A cat.")
    ) == ["A cat."]
    assert NegativeCaptions(column="negatives", rules=[]).extra_texts(shown("A dog.")) == []


def test_never_a_true_text_never_twice_and_always_the_same() -> None:
    words = [
        "left",
        "right",
        "no",
        "with",
        "two",
        "a",
        "the",
        "black",
        "white",
        "dog",
        "cat",
        "and",
        "effusion",
        "2.5",
        "cm",
        "1998",
        "nodule",
        "without",
        "is",
    ]
    draw, some = random.Random(3), 0
    part = NegativeCaptions(per_pair=4)
    for seed in range(300):
        text = " ".join(draw.choices(words, k=draw.randint(1, 9)))
        other = " ".join(draw.choices(words, k=draw.randint(1, 4)))
        pair = shown(text, other, languages=["en", "en"], seed=seed, rewrites=[["no dog", "en"]])
        found = part.extra_texts(pair)
        said = [normalise(one) for one in found]
        assert not {normalise(text), normalise(other), "no dog", ""} & set(said)
        assert len(set(said)) == len(said) <= 4
        assert part.extra_texts(pair) == found
        some += len(found)
    assert some > 600  # the property is not kept by saying nothing
    pairs = [shown("A black dog chases two white cats in 1998", languages=["en"], seed=s) for s in range(20)]
    assert len({tuple(part.extra_texts(pair)) for pair in pairs}) > 10  # the seed decides


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rules": []}, "objectives.n: rules: name one at least, or the column that holds negatives"),
        (
            {"rules": ["classes"]},
            "objectives.n: classes: the rule of that name and the list of classes go together",
        ),
        ({"shard": True}, 'objectives.n.shard: unknown option: did you mean "shared"?'),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        registry.build("objectives", "negative_captions", options, "objectives.n")
    assert str(caught.value) == message
