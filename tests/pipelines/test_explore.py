"""`explore`: the answers are those of the probes, nothing private is on the page, readings are counted."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from domainclip.cli.app import main
from domainclip.errors import DataError, ModelError, RecipeError
from domainclip.evaluation.probes.retrieval import Retrieval
from domainclip.evaluation.probes.zero_shot import ZeroShot
from domainclip.inference.adapted_model import AdaptedModel, load_model
from domainclip.inference.explorer.application import Application
from domainclip.inference.explorer.explorer import Explorer
from domainclip.inference.explorer.local_server import LocalServer, Reply
from domainclip.inference.explorer.view import View
from domainclip.objectives.base import Sizes
from domainclip.objectives.captioning import Captioning
from domainclip.pipelines.explore import ExploreRequest, open_page
from tests.conftest import make_corpus
from tests.evaluation.probes.synthetic_sets import metric_value
from tests.inference.explorer.explored_runs import squares_run

TRAIN = 40  # items of the training split of the squares


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, base: Path, corpus: Path) -> Path:
    return squares_run(tmp_path_factory.mktemp("runs") / "squares-1", base, corpus)


def opened(run: Path, **options: object) -> Application:
    page = open_page(ExploreRequest(run=str(run), **options))  # type: ignore[arg-type]
    page.server.server_close()
    assert isinstance(page.server.answer, Application)
    return page.server.answer


@pytest.fixture(scope="module")
def page(run: Path) -> Application:
    """The page of the largest split."""
    return opened(run, split="train")


@pytest.fixture
def explorer(page: Application) -> Explorer:
    return page.explorer


def got(application: Application, path: str = "", **fields: object) -> str:
    reply = application(path, View().but(**fields).address().removeprefix("?"))
    assert reply is not None
    return reply.body.decode("utf-8-sig")


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_answers_are_those_of_the_probes(explorer: Explorer) -> None:
    """Accuracy and R@1 of the page equal those of an evaluation, for both models."""
    everyone = np.arange(explorer.explored.size)
    for kind, probe, metric in (("", ZeroShot(), "accuracy"), ("captions", Retrieval(), "image_to_text_r1")):
        compared = explorer.compared(View(kind=kind))  # type: ignore[arg-type]
        assert compared is not None
        measured = [
            metric_value(probe(model.encoder, explorer.explored.data), metric)
            for model in explorer.explored.models
        ]
        assert compared.shares(everyone) == (TRAIN, *map(pytest.approx, measured))
    assert measured[0] != measured[1], "two equal models would pass whatever is compared"


def test_findings_have_the_thresholds_of_the_probe(
    run: Path, tmp_path: Path, base: Path, corpus: Path
) -> None:
    """Of classes that may hold together, each is judged at its threshold on validation."""
    run = squares_run(tmp_path / "several", base, corpus, "corpus.multi_label=true")
    explorer = opened(run, split="test").explorer
    data, encoder = explorer.explored.data, explorer.explored.models[1].encoder
    measured = ZeroShot()(encoder, data)
    thresholds = measured.details["thresholds"]
    assert set(thresholds) == {"blue", "green", "red", "white"}
    for name, threshold in thresholds.items():
        answers = explorer.answers(View(finding=name), 1)
        assert answers is not None
        present = [text.endswith("present") for text in answers.describe(range(explorer.explored.size))]
        assert present == (answers.strengths >= threshold).tolist()
        truth = [name in of_item for of_item in explorer.labels]
        assert answers.hits.tolist() == [float(a == b) for a, b in zip(present, truth, strict=True)]
    shown = got(Application(explorer), page="prompts", finding="red")
    assert f"{metric_value(measured, 'auroc/red'):.3f}" in shown


def test_a_search_has_the_cosines_of_the_model(explorer: Explorer, run: Path) -> None:
    model = load_model(run, device="cpu")
    images = explorer.explored.images(1)
    words = model.encode_texts(["a red square"])[0]
    found = explorer.cosines(View(words="a red square"), 1)
    np.testing.assert_allclose(found, images @ words, atol=2e-6)
    both = words + images[7]
    found = explorer.cosines(View(words="a red square", like=7), 1)
    np.testing.assert_allclose(found, images @ (both / np.linalg.norm(both)), atol=2e-6)
    alone = explorer.cosines(View(like=7), 0)
    assert alone is not None
    assert alone.argmax() == 7
    assert explorer.cosines(View(), 0) is None


def test_the_page_shows_both_models_and_filters(page: Application, run: Path) -> None:
    explorer = page.explorer
    compared = explorer.compared(View())
    assert compared is not None
    shown = got(page)
    assert "All 40 items. Right answers:" in shown
    assert shown.count("<article") == 24
    for outcome, count in compared.counts(np.arange(TRAIN)).items():
        rows = rows_of(got(page, "selection.csv", outcome=outcome))
        assert len(rows) == count
    red = rows_of(got(page, "selection.csv", label="red"))
    assert {row["labels"] for row in red} == {"red"}
    assert len(red) == sum("red" in labels for labels in explorer.labels) > 0
    group = rows_of(got(page, "selection.csv", group="g1"))
    assert [row["item"] for row in group] == ["images/002.png", "images/003.png"]
    points = explorer.embedding_maps()[1].points
    inside = np.flatnonzero((points[:, 0] <= 0.5) & (points[:, 1] <= 0.5))
    assert len(rows_of(got(page, "selection.csv", box="1,0,0,0.5,0.5"))) == len(inside) > 0
    assert "No item is left" in got(page, label="red", group="g40")


def test_a_selection_is_a_table(page: Application) -> None:
    rows = rows_of(got(page, "selection.csv", words="a red square", order="gain"))
    assert list(rows[0]) == [
        *("item", "group", "labels", "caption", "outcome"),
        *("base, clip: answer", "base, clip: right", "base, clip: strength", "base, clip: rank"),
        "base, clip: cosine",
        *("squares-1: answer", "squares-1: right", "squares-1: strength", "squares-1: rank"),
        "squares-1: cosine",
    ]
    assert len({row["item"] for row in rows}) == TRAIN
    for row in rows:
        assert row["squares-1: right"] == str(row["squares-1: answer"] == row["labels"]).lower()
    reply = page("selection.csv", "item=3&item=5&item=9999")
    assert reply is not None
    assert [row["item"] for row in rows_of(reply.body.decode("utf-8-sig"))] == [
        str(page.explorer.explored.data.items[row]["id"]) for row in (3, 5)
    ]


def test_prompts_are_tried_and_measured_by_what_is_downloaded(page: Application, tmp_path: Path) -> None:
    typed = "red: a red square\nblue: a blue square\nno label of these: x"
    shown = html.unescape(got(page, page="prompts", classes=typed))
    compared = page.explorer.compared(View(classes=typed))
    assert compared is not None
    assert compared.shares(np.arange(TRAIN))[0] == sum(
        len(labels & {"red", "blue"}) == 1 for labels in page.explorer.labels
    )
    assert '<th scope="row">red</th>' in shown
    assert '<th scope="row">no label of these</th>' not in shown, "a class without items has no recall"
    assert "domainclip eval" in shown
    assert "--classes classes.yaml" in shown
    downloaded = yaml.safe_load(got(page, "classes.yaml", classes=typed))
    assert downloaded["red"] == {"positive": ["a red square"]}
    by_template = got(page, page="prompts", templates="{}\na {} thing")
    assert "a {} thing" in by_template
    assert page.explorer.classes(View(templates="a {} thing"))["red"].positive == ["a red thing"]


def test_typed_texts_do_not_gather_in_memory(explorer: Explorer) -> None:
    held = [len(cache.memory) for cache in explorer.held]
    for i in range(100):
        explorer.cosines(View(words=f"query {i}"), 1)
    assert [len(cache.memory) for cache in explorer.held] == held
    assert len(explorer.recent) <= 64
    assert len(explorer.explored.models[1].encoder.cache.memory) <= held[1] + 1


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("templates=x", "--prompt-template: &#34;x&#34; must hold {} once"),
        ("classes=a", "classes: fewer than two to choose among"),
        ("page=item&row=99", "row: items are numbered from 0 to 39"),
        ("like=99", "like: items are numbered from 0 to 39"),
        ("second=5", "second: models are numbered from 0 to 1"),
        ("part=age", "part: no attribute of the items has this value"),
        ("box=5,0,0,1,1", "box: the first number is that of a model"),
        ("order=up", "order: unknown"),
    ],
)
def test_a_wrong_address_is_explained(page: Application, query: str, message: str) -> None:
    reply = page("", query)
    assert reply is not None
    assert reply.status == 400
    assert message in reply.body.decode()
    assert 'role="alert"' in reply.body.decode()


def test_what_is_typed_is_escaped(page: Application) -> None:
    attack = '"><script>alert(1)</script>\u202e'
    for kind in ("items", "map", "prompts"):
        shown = got(page, page=kind, words=attack, classes=f"{attack}: a\nb: c")
        assert "<script>alert" not in shown
        assert "\u202e" not in shown


def test_images_are_shown_where_the_card_allows_it(page: Application) -> None:
    reply = page("image", "row=3&side=224")
    assert reply is not None
    assert (reply.kind, reply.body[:2]) == ("image/jpeg", b"\xff\xd8")
    for query in ("row=99&side=224", "row=3&side=5000", "row=x&side=224", "row=-1&side=224", ""):
        assert page("image", query) is None


def test_nothing_private_is_on_the_page(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Canary: ids, groups, captions, labels and paths of a corpus whose card states nothing about privacy."""
    corpus = make_corpus(tmp_path / "DOEJANE", items=64)
    table = corpus / "metadata.csv"
    text = (
        table.read_text()
        .replace("square", "MRN4711")
        .replace("g1,", "WARD-9,")
        .replace(",white,", ",Jane Roe,")
    )
    table.write_text(text)
    private = [
        "corpus.privacy={identifiers: unknown}",
        "corpus.min_items=30",
        "corpus.classes={red: a, blue: b}",
    ]
    squares_run(tmp_path / "run", base, corpus, *private)
    monkeypatch.chdir(tmp_path)
    page = opened(Path("run"), split="train")
    pages: list[Reply | None] = [
        page("", f"page={name}&row=2") for name in ("items", "map", "prompts", "item")
    ]
    pages += [page("", "words=a&kind=captions"), page("detail", "page=item&row=2"), page("selection.csv", "")]
    pages += [
        page("", "kind=captions"),
        page("selection.csv", "kind=captions&words=a"),
    ]
    seen = "".join(one.body.decode() for one in pages if one is not None)
    assert len(pages) == 9
    assert "red" in seen
    canaries = ("MRN4711", "WARD-9", "Jane", "DOEJANE", "images/0", ".png", str(tmp_path))
    assert [one for one in canaries if one in seen] == []
    assert "No item is left" in got(page, group="WARD-9")
    assert re.search(r"\b[0-9a-f]{16}\b", seen), "items have pseudonyms"
    assert page("image", "row=2&side=224") is None
    assert "Images and captions are not shown" in seen


def ledger(run: Path) -> list[dict[str, object]]:
    file = run / "ledger.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_each_session_is_one_reading_of_its_split(
    tmp_path: Path, base: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    run = squares_run(tmp_path / "run", base, corpus)
    for _ in range(2):
        page = opened(run, split="test")
    of_test = ledger(run)
    assert {line["split"] for line in of_test} == {"test"}
    assert len({line["evaluation"] for line in of_test}) == 2
    assert {line["adapted"] for line in of_test} == {True, False}
    caution = page.explorer.explored.caution
    assert caution.startswith("The test split has been read 2 times, for 1 adapted model.")
    assert html.escape(caution, quote=True).replace("&#x27;", "&#39;") in got(page)
    got(page, classes="red: a\nblue: b")
    got(page, classes="red: a\nblue: b", words="x")
    after = ledger(run)
    assert len({line["evaluation"] for line in after}) == 2, "prompts that are tried are no further reading"
    assert len({line["prompts"] for line in after}) == 2
    assert len(after) == len(of_test) + 2


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"split": "tset"}, RecipeError, '--split: unknown "tset": did you mean "test"'),
        ({"method": "umap"}, RecipeError, "--map umap: needs umap-learn"),
        ({"run": "openai/clip-vit-base-patch32"}, RecipeError, "not a run folder, which names its corpus"),
        (
            {"overrides": ["corpus.splits={train: 1, validation: 0, test: 0}", 'corpus.columns.split=""']},
            DataError,
            "--split validation: this split has no items",
        ),
        ({"models": ["nothing/here"]}, ModelError, "nothing/here"),
    ],
)
def test_what_cannot_be_explored(
    run: Path,
    options: dict[str, object],
    kind: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from domainclip.inference.explorer import embedding_map

    monkeypatch.setattr(embedding_map, "find_spec", lambda name: None)
    with pytest.raises(kind, match=re.escape(message)):
        opened(**{"run": run, **options})  # type: ignore[arg-type]


def test_the_command(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It prints the address, serves until Ctrl-C, and names a port that is taken."""
    served = list[str]()

    def serve(self: LocalServer) -> None:
        served.append(self.address)
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalServer, "serve_forever", serve)
    with pytest.raises(SystemExit) as end:
        main(["explore", str(run), "--json"])
    assert not end.value.code
    document = json.loads(capsys.readouterr().out)
    assert document | {"address": ""} == {
        "schema_version": 1,
        "address": "",
        "split": "validation",
        "items": 8,
        "unreadable": 0,
        "models": ["base, clip", "squares-1"],
        "shows_images": True,
    }
    assert [document["address"]] == served
    with LocalServer(lambda path, query: None) as other, pytest.raises(SystemExit) as end:
        main(["explore", str(run), "--port", str(other.server_port)])
    assert end.value.code == 2
    assert f"--port {other.server_port}: Address already in use: name another one" in capsys.readouterr().err


def test_an_item_has_the_caption_that_its_model_writes_where_it_may_be_shown(page: Application) -> None:
    explored = page.explorer.explored
    model = explored.models[1].encoder.model
    objective = Captioning(layers=1, width=4, heads=2)
    sizes = Sizes(model.width, vocabulary=np.array([300, 301]), caption_tokens=3)
    objective.add_to_model(model, objective.initial_weights(sizes, 0), objective.initial_memory(sizes, 0))
    try:
        (expected,) = AdaptedModel(model).write_captions([explored.data.items[7]["image"]["path"]], beams=3)
        shown = html.unescape(got(page, page="item", row=7))
        assert shown.count("Written caption") == 1  # the base has no captioner
        assert f'<p class="written">{expected}</p>' in shown
        assert "may repeat a training caption" in shown
        privacy = explored.card.privacy.model_copy(update={"burned_in_text": "unknown"})
        card = explored.card.model_copy(update={"privacy": privacy})
        assert replace(explored, data=replace(explored.data, card=card)).written_caption(1, 7) == ""
    finally:
        model.captioner = None
    assert "Written caption" not in got(page, page="item", row=7)
