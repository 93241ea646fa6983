"""Base and members together: the shares that are tried, what is refused, and a run that is used again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from domainclip.errors import DomainclipError, ModelError, RecipeError
from domainclip.evaluation import contamination
from domainclip.inference.adapted_model import load_model
from domainclip.models import loading
from domainclip.pipelines.export.export import export
from domainclip.pipelines.export.request import ExportRequest
from domainclip.pipelines.finetune import finetune
from domainclip.pipelines.inputs import load_inputs
from domainclip.report.results_file import load as load_results
from domainclip.strategies.backbone_ensemble import BackboneEnsemble
from domainclip.training.run_context import RunOptions
from tests.support import tiny_models
from tests.support.square_recipes import square_recipe


def test_the_shares_that_are_tried() -> None:
    assert BackboneEnsemble(members=("a",), steps=2).shares == [(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)]
    three = BackboneEnsemble(members=("a", "b")).shares
    assert len(three) == len(set(three)) == 15  # (4 + 2) over 2
    assert all(sum(shares) == pytest.approx(1) for shares in three)
    with pytest.raises(
        RecipeError, match=r"steps: 20 with 5 members: 53,130 shares to try, of 2,000 at most"
    ):
        BackboneEnsemble(members=tuple("abcde"), steps=20)


def test_what_does_not_fit_is_refused_by_name(base: Path, tmp_path: Path) -> None:
    loaded = loading.load_model(base)
    siglip = tiny_models.tiny_siglip(tmp_path / "siglip")
    with pytest.raises(ModelError, match=r"members: .*siglip: it is of family siglip and the base of clip"):
        BackboneEnsemble(members=(str(siglip),)).build_model(loaded)
    other = tiny_models.retokenised(base, tmp_path / "other", "words")
    with pytest.raises(ModelError, match=r"other: its tokenizer is not that of the base"):
        BackboneEnsemble(members=(str(other),)).build_model(loaded)
    with pytest.raises(ModelError, match=r'^strategy.backbone_ensemble.members: ".*none": no such folder'):
        BackboneEnsemble(members=(str(tmp_path / "none"),)).build_model(loaded)
    larger = tiny_models.tiny_clip(tmp_path / "larger", seed=3)
    config = json.loads((larger / "preprocessor_config.json").read_text())
    (larger / "preprocessor_config.json").write_text(json.dumps(config | {"image_mean": [0.0, 0.0, 0.0]}))
    with pytest.raises(ModelError, match=r"larger: it prepares images in another way"):
        BackboneEnsemble(members=(str(larger),)).build_model(loaded)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, base: Path, corpus: Path) -> Path:
    """The run of the shipped recipe on the squares: its member is the base after training, which is better."""
    folder = tmp_path_factory.mktemp("ensemble")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOMAINCLIP_CACHE", str(folder / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        trained = square_recipe(
            "class_folders", base, corpus, "probes=[zero_shot]", "train.learning_rate=1e-3"
        )
        assert finetune(trained, RunOptions(folder=folder / "trained", quiet=True)) is not None
        members = f"strategy={{backbone_ensemble: {{members: ['{folder / 'trained'}']}}}}"
        recipe = square_recipe("backbone_ensemble", base, corpus, members)
        assert finetune(recipe, RunOptions(folder=folder / "run", quiet=True)) is not None
    return folder / "run"


def test_a_run_is_no_worse_than_its_base_and_is_used_like_any_other(run: Path, corpus: Path) -> None:
    results = load_results(run / "results.json")
    facts = results.run["facts"]
    shares = [float(share) for share in facts["shares"].split(", the best")[0].split(", ")]
    assert sum(shares) == pytest.approx(1)
    assert shares[1] > 0  # the member has learned the squares
    assert (results.run["learning"], results.run["steps"]) == (0, 0)
    accuracy = next(row for row in results.results if row.metric == "accuracy" and row.dataset == "test")
    assert accuracy.adapted is not None
    assert accuracy.adapted.value is not None
    assert accuracy.base.value is not None
    assert accuracy.adapted.value > accuracy.base.value
    # What the member was trained on, the ensemble was: it is not measured on that as if it were new.
    known, of_member = contamination.load(str(run)), contamination.load(str(run.parent / "trained"))
    assert known is not None
    assert of_member is not None
    assert of_member.images in [other.images for other in known.others]
    model = load_model(run)
    images = sorted(corpus.rglob("*.png"))[:4]
    scores = model.similarity(images, ["a red square", "a blue square"])
    assert np.asarray(scores).shape == (4, 2)
    assert len(model.classify(images)) == 4
    card = (run / "README.md").read_text()
    assert "library_name: domainclip\n" in card
    assert "domainclip.load_model" in card
    # No folder of this machine is in what a push would send.
    config = (run / "model" / "config.json").read_text()
    assert str(run.parent) not in config
    assert '"members"' in config


def test_it_is_neither_trained_nor_exported(run: Path, base: Path, corpus: Path, tmp_path: Path) -> None:
    recipe = square_recipe("class_folders", run, corpus)
    with pytest.raises(RecipeError, match="is an ensemble, whose weights are not trained"):
        load_inputs(recipe, "train")
    with pytest.raises(DomainclipError, match="several models as one, which no other library has"):
        export(ExportRequest(run=run, to="transformers", out=tmp_path / "out"))
    with pytest.raises(ModelError, match="of family clip_ensemble, of which no ensemble is made"):
        BackboneEnsemble(members=(str(run),)).build_model(loading.load_model(base))


def test_objectives_are_refused(base: Path, corpus: Path) -> None:
    members = f"strategy={{backbone_ensemble: {{members: ['{base}']}}}}"
    recipe = square_recipe("backbone_ensemble", base, corpus, members, "objectives=contrastive")
    with pytest.raises(RecipeError, match="objectives: strategy backbone_ensemble trains no weight"):
        load_inputs(recipe, "train")


@pytest.mark.parametrize(
    "changes",
    [
        ["corpus.templates=[]"],
        ["corpus.columns.split=", "corpus.splits={train: 0.7, validation: 0.0, test: 0.3}"],
    ],
)
def test_without_a_class_to_choose_by_the_shares_are_equal(
    base: Path, corpus: Path, tmp_path: Path, changes: list[str]
) -> None:
    members = f"strategy={{backbone_ensemble: {{members: ['{tiny_models.tiny_clip(tmp_path / 'other', seed=5)}']}}}}"
    recipe = square_recipe("backbone_ensemble", base, corpus, members, *changes, "probes=[retrieval]")
    assert finetune(recipe, RunOptions(folder=tmp_path / "run", quiet=True)) is not None
    facts = load_results(tmp_path / "run" / "results.json").run["facts"]
    assert facts["shares"] == "0.50, 0.50: equal, since no validation item has a class to choose by"
