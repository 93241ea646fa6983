"""The card is valid for the Hub, shows losses as prominently as gains, and escapes hostile data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from domainclip.data.cards import Card
from domainclip.errors import RecipeError
from domainclip.report import results_file
from domainclip.report.front_matter import problem
from domainclip.report.model_card import CardFacts, render, run_recipe
from domainclip.report.usage import ModelUse
from tests.report.made_results import context, evaluation
from tests.support.run_folders import made_run, recipe, result, results

HOSTILE = (
    "---\n| `x` | </table><script>alert(1)</script> \u202e [a](http://evil) ```\n# title\n---\nlicense: mit"
)


def test_front_matter_is_what_the_hub_reads() -> None:
    data: Any = ModelCard(_card(adapter=True)).data
    assert (data.language, data.license, data.library_name) == (["en"], "cc-by-4.0", "peft")
    assert data.pipeline_tag == "zero-shot-image-classification"
    assert (data.base_model, data["base_model_relation"]) == ("lab/base-clip", "adapter")
    assert data.tags == ["domainclip", "clip", "lora"]
    assert data.model_name == "made-run"
    assert [
        (r.dataset_type, r.dataset_name, r.dataset_split, r.metric_type, r.metric_value)
        for r in data.eval_results
    ] == [
        ("chest-phantom", "Chest phantoms", "test", "macro_accuracy", 0.554),
        ("general", "General images", "general", "macro_accuracy", 0.058),
    ]
    assert problem(_card()) is None
    plain: Any = ModelCard(_card(adapter=False)).data
    assert (plain.library_name, plain["base_model_relation"]) == ("transformers", "finetune")


def test_a_metric_whose_control_failed_is_not_claimed() -> None:
    fault = "the control image_to_text_r1_shuffled of the base is 0.371, where chance is 0.039"
    failed = result(
        "image_to_text_r1",
        0.6,
        0.4,
        probe="retrieval",
        not_judged=fault,
        headline=True,
        verdict="not judged",
    )
    text = _card(results(failed))
    assert "went from 0.600 to 0.400; this is not judged, since the control image" in text
    data: Any = ModelCard(text).data
    assert "image_to_text_r1" not in [measured.metric_type for measured in data.eval_results]
    assert "R@1 on test" not in text.split("Got worse")[1].split("Got better")[0]


def test_the_sizes_of_the_splits() -> None:
    text = _card(results_file.to_results(evaluation(), context()))
    assert (
        "| Split | Items | Groups |\n|---|--:|--:|\n| train | 1,390 | 1,390 |\n| test | 354 | 354 |\n" in text
    )


def test_a_reader_of_markdown_gets_the_tables_and_the_code() -> None:
    """No table is broken, however the group is called: it is parsed as the Hub parses it."""
    corpus = results().corpus | {"group_name": "patients|studies"}
    body = _card(results(corpus=corpus)).split("\n---\n", 1)[1]
    tokens = MarkdownIt().enable("table").parse(body)
    cells = [t.content for i, t in enumerate(tokens) if tokens[i - 1].type in ("td_open", "th_open")]
    widths = []
    for start, token in enumerate(tokens):
        if token.type == "tr_open":
            end = next(i for i in range(start, len(tokens)) if tokens[i].type == "tr_close")
            widths.append(sum(one.type in ("td_open", "th_open") for one in tokens[start:end]))
    assert widths == [8, 8, 8, 3, 3, 3]
    assert cells[-9:] == ["Split", "Items", "Patients|studies", "train", "800", "410", "test", "354", "354"]
    texts = [t.content for t in tokens if t.type == "inline" and t.level < 4]
    assert not [text for text in texts if "--:" in text or text.startswith("|")]
    assert [t.info for t in tokens if t.type == "fence"] == ["python", ""]


def test_a_local_base_and_corpus_are_not_named() -> None:
    text = render(results(), _facts(recipe("/srv/DOE/clip", "/srv/DOE/cxr")), ModelUse(adapter=True))
    assert "DOE" not in text
    data: Any = ModelCard(text).data
    assert data.base_model is None
    assert data.datasets is None
    assert "A CLIP model that is not on the Hub, adapted to Chest phantoms by lora" in text


def test_a_corpus_of_the_hub_is_named() -> None:
    given = recipe("lab/base-clip", "lab/chests")
    data: Any = ModelCard(render(results(), _facts(given, reader="hub"), ModelUse(adapter=False))).data
    assert data.datasets == ["lab/chests"]
    assert [one.dataset_type for one in data.eval_results] == ["lab/chests", "general"]


@pytest.mark.parametrize(
    ("text", "license", "name"),
    [("mit", "mit", None), ("", "other", "unnamed"), ("Our: own\nlicence", "other", "our-own-licence")],
)
def test_licences(text: str, license: str, name: str | None) -> None:
    card = _card(license=text)
    data: Any = ModelCard(card).data
    assert (data.license, data.license_name) == (license, name)
    assert problem(card) is None


def test_losses_come_first_and_are_complete() -> None:
    text = _card()
    worse, better = text.index("### ▼ Got worse"), text.index("### ▲ Got better")
    assert worse < better
    assert "- zero-shot macro accuracy on general: 0.498 → 0.058, −0.440\n" in text[worse:better]
    assert "normal (0.400 → 0.300)" in text[worse:better]
    assert (
        "- **▼ worse.** On the retention set, zero-shot macro accuracy fell from 0.498 to 0.058, by 0.440 "
        "(95 % interval 0.420 to 0.460; p = 0.001): a significant loss.\n"
    ) in text
    assert (
        "| zero-shot macro accuracy | test | 354 | 354 | 0.079 (0.049 to 0.109) | 0.554 (0.524 to 0.584) | "
        "+0.475 (+0.455 to +0.495) | ▲ better |\n"
    ) in text
    assert "was not measured" not in text


def test_the_verdicts_and_intervals_are_those_of_the_file() -> None:
    """A difference that is significant alone and not after correction: the card shows the corrected interval."""
    together = {"value": -0.03, "low": -0.07, "high": 0.01}
    judged = {"comparisons": 20, "adjusted_p": 0.2, "simultaneous": together, "at_most_lost": 0.07}
    head = result("macro_f1", 0.5, 0.47, p=0.01, judged=judged, verdict="no difference shown", headline=True)
    part = result("recall/0", 0.5, 0.47, p=0.01, verdict="no difference shown")
    text = _card(results(results=[result("macro_accuracy", 0.5, 0.6), head, part]))
    assert "### ▼ Got worse\n\nNone of 3 metrics got significantly worse." in text
    assert "| −0.030 (−0.070 to +0.010) | \\= no difference shown |" in text
    kept = result(
        "macro_accuracy", 0.5, 0.5, p=1.0, judged={"margin": 0.05}, verdict="kept within the margin"
    )
    assert "≤ kept within the margin" in _card(results(results=[kept]))


def test_the_card_begins_with_the_verdict_in_words() -> None:
    corpus = results().corpus | {"group_name": "patients", "class_name": "finding"}
    text = _card(results(corpus=corpus)).replace("\u00a0", " ")
    lead = "Names the finding right: 7.9 % → 55.4 %, gained. General recognition: 49.8 % → 5.8 %, lost."
    assert f"{lead} One training run, 354 patients." in text
    assert "of one training run: the intervals hold the luck of the items, and not that of the seed." in text
    assert "| Items | Patients |" in text


def test_a_rank_may_fall() -> None:
    rank = result(
        "image_to_text_median_rank", 30.0, 12.0, probe="retrieval", higher_is_better=False, unit="rank"
    )
    assert "| 30 (30 to 30) | 12 (12 to 12) | −18 (−18 to −18) | ▲ better |" in _card(results(rank))


def test_unmeasured_forgetting_is_stated() -> None:
    text = _card(results(corpus={"name": "Chest phantoms"}))
    assert "**Forgetting outside the domain was not measured.**" in text


def test_an_invalid_evaluation_is_stated() -> None:
    text = _card(results(valid=False, warnings=["3 patients are in two splits"]))
    assert (
        "> **This evaluation is not valid.** Do not rely on the values below; the warnings give the reasons."
        in text
    )
    assert "- 3 patients are in two splits\n" in text
    assert "a significant gain" not in text


@pytest.mark.parametrize(
    ("corpus", "medical"),
    [
        ({"reader": "dicom"}, True),
        ({"reader": "table", "privacy": {"identifiers": "de-identified"}}, True),
        ({"reader": "table"}, False),
    ],
)
def test_limits(corpus: dict[str, Any], medical: bool) -> None:
    text = _card(**corpus)
    assert ("**Not a medical device.**" in text) == medical
    assert "**Embeddings are not anonymous.**" in text


def test_the_kind_of_data_is_stated() -> None:
    text = _card(privacy={"identifiers": "de-identified", "burned_in_text": "unknown"})
    assert (
        "**Data.** Chest phantoms: data of persons, de-identified; text burned into the images: unknown.\n"
        in text
    )


def test_only_the_first_paragraph_of_the_cards_description() -> None:
    text = _card(description="# Chest phantoms\n\nGenerated,\nnot recorded.\n\nPatient Doe, 4711.")
    assert "licence cc0-1.0). Generated, not recorded.\n" in text
    assert "4711" not in text


def test_hostile_data_is_escaped() -> None:
    measured = results(
        result(f"accuracy/{HOSTILE}", 0.5, 0.1),
        corpus={
            "name": HOSTILE,
            "card": HOSTILE,
            "splits": {HOSTILE: {"items": 1, "groups": 1}},
            "retention": {"set": HOSTILE},
        },
        warnings=[HOSTILE],
    )
    given = recipe("lab/base-clip", report={"title": HOSTILE})
    facts = _facts(given, pretty_name=HOSTILE, license=HOSTILE, description=HOSTILE, language=[HOSTILE, "en"])
    facts = CardFacts(given, facts.corpus, [HOSTILE], HOSTILE)
    text = render(measured, facts, ModelUse(adapter=True))
    assert problem(text) is None
    data: Any = ModelCard(text).data
    assert (data.license, data.language, data.base_model) == ("other", ["en"], "lab/base-clip")
    assert "\u202e" not in text
    front, body = text[4:].split("\n---\n", 1)
    assert yaml.safe_load(front)["model-index"][0]["name"] == "made-run"
    # What stands between fences is shown as it is, and no fence is closed from inside.
    outside = re.sub(r"^(`{3,})[a-z]*\n.*?^\1$", "", body, flags=re.DOTALL | re.MULTILINE)
    assert "<script" not in outside
    assert not re.search(r"(?<!\\)\]\(http://evil", outside)
    assert not re.search(r"^(---|# title|license: mit)", outside, re.MULTILINE)
    assert not re.search(r"(?<!\\)`", re.sub(r"`(BASE|domainclip [\w ./-]+)`", "", outside))
    for line in outside.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (4, 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("license: cc-by-4.0", "license: cc-by4"),
            'license: "cc-by4" is not a licence of the Hub: did you mean "cc-by-4.0"?',
        ),
        (("license: cc-by-4.0", "license: other"), "license: other needs license_name"),
        (("lab/base-clip\n", "/srv/DOE/clip\n"), "base_model: must be a repository name, OWNER/NAME"),
        (
            ("language:\n- en", "language: [en"),
            "its front matter: not valid YAML: line ",
        ),
        (
            ("- name: made-run", "- title: made-run"),
            "model-index.0.name: field required: correct it, or remove model-index",
        ),
    ],
)
def test_problems_of_a_card(change: tuple[str, str], message: str) -> None:
    assert (problem(_card().replace(*change, 1)) or "").startswith(message)


def test_the_revision_of_the_base_is_used() -> None:
    text = render(results(), _facts(recipe("lab/base-clip", revision="abc")), ModelUse(adapter=True))
    assert 'AutoModel.from_pretrained("lab/base-clip", revision="abc")' in text
    assert "[lab/base-clip](https://huggingface.co/lab/base-clip) at revision abc, adapted" in text


def test_citations_are_links(tmp_path: Path) -> None:
    text = _card()
    assert "- [arXiv:2106.09685](https://arxiv.org/abs/2106.09685)\n" in text
    run_facts = {
        "title": "Made run",
        "command": "",
        "facts": {"objectives": {"contrastive": 1.0, "gone": 1.0}},
    }
    run = made_run(
        tmp_path / "run", run=run_facts
    )  # the recipe names no objective: the base's family decided
    assert CardFacts.of(run).citations == [
        "strategy lora: arXiv:2106.09685",
        "objective contrastive: arXiv:2103.00020",
        "probe zero shot: arXiv:2103.00020",
        "probe retrieval: arXiv:2103.00020",
    ]


def test_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        run_recipe(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/recipe.yaml: no such file: give a run folder, for example runs/art-1"
    )
    (tmp_path / "recipe.yaml").write_text("name: x\nbase: {path: a/b}\ncorpus: {path: c}\n")
    with pytest.raises(RecipeError) as caught:
        run_recipe(tmp_path)
    assert str(caught.value) == f"{tmp_path}/recipe.yaml: strategy: field required"


def _facts(given: Any, license: str = "cc-by-4.0", **corpus: Any) -> CardFacts:
    card = {
        "name": "chest_phantom",
        "pretty_name": "Chest phantoms",
        "license": "cc0-1.0",
        "language": ["en"],
    }
    return CardFacts(given, Card.model_validate(card | corpus), ["arXiv:2106.09685"], license)


def _card(measured: Any = None, adapter: bool = True, license: str = "cc-by-4.0", **corpus: Any) -> str:
    return render(
        measured or results(), _facts(recipe("lab/base-clip"), license, **corpus), ModelUse(adapter)
    )
