"""Looking at held-out data: the right figures, the same ones every time, and nothing else is touched."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from domainclip import components
from domainclip.components import WeightedObjectives
from domainclip.config import loading as loading_config
from domainclip.data.batching.matches import Matches
from domainclip.data.cards import load_card
from domainclip.data.corpus import load_corpus
from domainclip.data.images.decode import decode_image
from domainclip.errors import DataError, RecipeError
from domainclip.evaluation import readable_images
from domainclip.evaluation.protocol import Protocol
from domainclip.evaluation.statistics.drops import least_drop
from domainclip.models import loading
from domainclip.models.dual_encoder import DualEncoder
from domainclip.objectives.contrastive import Contrastive
from domainclip.pipelines.protocol import evaluation_sets
from domainclip.pipelines.retention import load_retention
from domainclip.strategies.lora import Lora
from domainclip.training import validation
from domainclip.training.tower_keys import TowerKeys
from domainclip.training.validation import ValidationSet
from tests.conftest import make_corpus
from tests.support.matches import right_texts

Make = Callable[..., ValidationSet | None]
_CARD = "columns: {image: file_name, texts: text, labels: label}, templates: ['a {} square'], min_items: 1"


@pytest.fixture
def loaded(base: Path) -> DualEncoder:
    return loading.load_model(base)


@pytest.fixture
def make(recipe_file: Path, loaded: DualEncoder, tmp_path: Path) -> Make:
    general = make_corpus(tmp_path / "general", items=23)

    def build(*overrides: str, retention: bool = True, split: bool = True) -> ValidationSet | None:
        said = ["train.validate_every=2", "train.batch_size=3", *overrides]
        said += [f"retention={{path: {general}, {_CARD}}}"] if retention else []
        recipe = loading_config.load_recipe(str(recipe_file), said)
        corpus = load_corpus(load_card(recipe.corpus.card, recipe.corpus.overrides()), recipe.corpus.path)
        if not split:
            corpus.splits["validation"] = corpus.splits["validation"].select([])
        sets = evaluation_sets(recipe, corpus, load_retention(recipe, corpus.card)[0])
        probes = components.build_components(recipe).probes
        return validation.make_validation_set(
            recipe, corpus, sets, WeightedObjectives({"contrastive": (1.0, Contrastive())}), probes, loaded
        )

    return build


def _by_hand(held: ValidationSet, model: DualEncoder) -> float:
    """The loss as the definition says it, pair by pair."""
    pixels = [model.image_preprocessor(decode_image(picture)) for picture in held.pairs.items["image"]]
    batch = {"pixels": torch.from_numpy(np.stack([one["pixels"] for one in pixels]))}
    with torch.no_grad():
        image, text = model.encode_image(batch), model.encode_text(model.text_tokenizer(held.texts))
        logits = (model.scale * image @ text.T).double()
    together, total = right_texts(Matches.within(held.keys), 8), 0.0
    for rows in ([0, 1], [2, 3, 4], [5, 6, 7]):  # of eight pairs in three batches
        for i in rows:
            for table, right in ((logits, together), (logits.T, together.T)):
                others = [j for j in rows if j == i or not right[i, j]]
                total += float(table[i, others].logsumexp(0) - table[i, i]) / 2
    return total / 8


def test_the_loss_by_hand(make: Make, loaded: DualEncoder) -> None:
    held = make()
    assert held is not None
    assert len(held.texts) == len(held.pairs.items) == 8
    assert right_texts(Matches.within(held.keys), 8).sum() > 8  # some are not each other's negatives
    assert held.measure(loaded)["loss"] == pytest.approx(_by_hand(held, loaded), abs=1e-5)


def test_the_figures_are_those_of_the_probes(make: Make, loaded: DualEncoder) -> None:
    held = make("probes=[linear_probe, zero_shot]")
    assert held is not None
    found = held.measure(loaded)
    assert found["figure_of"] == found["retention_of"] == "zero_shot accuracy"  # eight items
    assert found == held.base_metrics | {"lost": 0.0}
    from domainclip.evaluation.encoder import CachedEncoder
    from domainclip.evaluation.evaluate import evaluate_pair

    assert held.retention is not None
    whole = evaluate_pair(
        CachedEncoder(loaded), None, Protocol([held.retention], {"zero_shot": held.probes[0]}, 100)
    )
    row = next(row for row in whole.rows if row.primary)
    assert found["retention"] == pytest.approx(row.base.value)


def test_what_was_lost_is_counted_from_the_base(make: Make, loaded: DualEncoder) -> None:
    held = make()
    assert held is not None
    held = replace(held, base_metrics={**held.base_metrics, "retention": 0.6})
    with torch.no_grad():  # one direction for all texts: guessing among four classes
        loaded.hf_base.text_projection.weight.zero_()
    found = held.measure(loaded)
    assert found["retention"] == pytest.approx(0.25)
    assert found["lost"] == pytest.approx(0.35)


def test_the_bound_of_what_was_lost(make: Make, loaded: DualEncoder) -> None:
    small = make("train.on_retention_drop=stop")
    assert small is not None
    assert "lost_at_most" not in small.measure(loaded)  # 0.05 cannot be shown on so few groups
    (warning,) = small.floor_warnings
    assert warning.startswith("train.max_retention_drop: a drop of at most 0.05 cannot be shown with ")
    held = replace(small, max_retention_drop=0.5)
    assert held.floor_warnings == []
    assert held.base_retention is not None
    groups = len(set(held.base_retention.groups))
    # The base itself: a mean over classes of unequal size leaves more open than one over items.
    assert least_drop(groups) <= held.measure(loaded)["lost_at_most"] < 2 * least_drop(groups)
    with torch.no_grad():
        loaded.hf_base.text_projection.weight.zero_()
    found = held.measure(loaded)
    assert found["lost_at_most"] > found["lost"]


def test_nothing_is_touched(make: Make, loaded: DualEncoder) -> None:
    held = make()
    assert held is not None
    Lora(rank=2, dropout=0.5, towers="text", last_layers=1).learning_rates(loaded)
    with torch.no_grad():
        for name, weight in loaded.weights().items():
            if ".lora_B." in name:
                weight.normal_(0, 0.1)
    loaded.set_train_mode({"text", "scale"})
    before = [module.training for module in loaded.modules()]
    assert len(set(before)) == 2
    torch.manual_seed(3)
    states = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    weights = {name: weight.detach().clone() for name, weight in loaded.weights().items()}
    found = held.measure(loaded)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]
    assert [module.training for module in loaded.modules()] == before
    assert all(torch.equal(weight, weights[name]) for name, weight in loaded.weights().items())
    assert all(weight.grad is None for weight in loaded.weights().values())
    assert held.measure(loaded) == found  # dropout is off while it looks
    assert found["loss"] != held.base_metrics["loss"]
    # The image tower was run once, and nothing is kept of weights that are no more.
    sizes = len(held.cache.memory)
    with torch.no_grad():
        loaded.hf_base.text_projection.weight.mul_(0.5)
    held.measure(loaded)
    assert len(held.cache.memory) == sizes


def test_no_more_than_a_few_hundred_the_same_ones(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "_MAX_PAIRS", 5)
    monkeypatch.setattr(validation, "_MAX_RETENTION_ITEMS", 7)
    one, two, other = make(), make(), make("train.seed=1")
    assert one is not None
    assert two is not None
    assert other is not None
    assert one.retention is not None
    assert len(one.pairs.items) == 5
    assert len(one.retention.items) == 7
    assert one.pairs.items["id"][:] == two.pairs.items["id"][:] != other.pairs.items["id"][:]
    assert one.base_metrics == two.base_metrics


def test_pictures_that_cannot_be_read_are_left_out(make: Make, corpus: Path, tmp_path: Path) -> None:
    copy = make_corpus(tmp_path / "copy")
    held = make(f"corpus.path={copy}")
    assert held is not None
    path = held.pairs.items["image"][0]["path"]
    Path(path).write_bytes(b"no picture")
    again = make(f"corpus.path={copy}")
    assert again is not None
    assert len(again.pairs.items) == len(again.texts) == 7


def test_nothing_to_look_at(make: Make, recipe_file: Path) -> None:
    assert make("train.validate_every=null") is None
    with pytest.raises(DataError) as data:
        make(split=False)
    assert str(data.value) == (
        "corpus unnamed: the validation split has no pairs: train.validate_every needs them; leave it out, or "
        "give the card a validation split"
    )
    with pytest.raises(RecipeError) as none:
        make("train.on_retention_drop=stop", retention=False)
    assert str(none.value) == (
        "train.on_retention_drop: stop needs a retention set: name one with retention.path=FOLDER retention.card=CARD"
    )
    with pytest.raises(RecipeError) as unmeasured:
        make("train.on_retention_drop=lower_rate", "probes=[linear_probe]")
    assert str(unmeasured.value) == (
        "train.on_retention_drop: lower_rate has no metric to follow: add zero_shot or retrieval to probes, as the "
        "retention set allows"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["train.final_weights=best"], "final_weights: best"),
        (["train.keep_best_checkpoint=true"], "keep_best_checkpoint"),
        (["train.on_retention_drop=stop"], "on_retention_drop: stop"),
    ],
)
def test_asking_without_looking(recipe_file: Path, changes: list[str], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        loading_config.load_recipe(str(recipe_file), changes)
    assert str(caught.value) == (
        f"squares.yaml: train: {said} needs validate_every: set the number of steps between two validations"
    )


def test_what_chose_is_said(recipe_file: Path) -> None:
    def of(*changes: str) -> list[str]:
        recipe = loading_config.load_recipe(str(recipe_file), ["train.validate_every=2", *changes])
        return validation.validation_warnings(recipe.train, recipe.evaluate.split)

    assert of("train.final_weights=best") == []
    assert of("train.final_weights=best", "evaluate.split=validation") == [
        "train.final_weights: the step is chosen on the validation split, so its metrics are optimistic"
    ]
    assert of("train.on_retention_drop=stop") == [
        "train.on_retention_drop: the retention set influences the training, so its metrics are optimistic"
    ]


def test_looking_changes_no_identity(recipe_file: Path) -> None:
    """A run may be continued with other eyes, unless what they see decides."""

    def of(*changes: str) -> Any:
        return loading_config.load_recipe(str(recipe_file), changes).identity()

    looking = ["train.validate_every=2"]
    assert (
        of()
        == of(*looking)
        == of(*looking, "train.final_weights=best", "train.timeout=2h", "train.max_retention_drop=0.2")
    )
    steering = [*looking, "train.on_retention_drop=stop"]
    assert of(*steering) != of()
    assert of(*steering) != of(*steering, "train.max_retention_drop=0.2")
    assert of(*steering) != of(*steering, "probes=[retrieval]")
    assert of() == of("probes=[retrieval]")


def test_a_later_validation_decodes_no_image_and_hashes_no_trained_weight(
    make: Make, loaded: DualEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = make()
    assert held is not None
    loaded.set_trainable([(".*", 1.0)])
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for projection in (loaded.hf_base.visual_projection, loaded.hf_base.text_projection):
            projection.weight.add_(torch.randn(projection.weight.shape, generator=draw))
    expected, hashed = held.measure(loaded), list[str]()
    plain = DualEncoder.fingerprint
    monkeypatch.setattr(readable_images, "decode_image", lambda _: pytest.fail("an image is decoded"))
    monkeypatch.setattr(
        DualEncoder, "fingerprint", lambda model, tower: (hashed.append(tower), plain(model, tower))[1]
    )
    towers = TowerKeys()
    assert held.measure(loaded, towers) == expected
    with torch.no_grad():
        loaded.hf_base.text_projection.weight.zero_()
    assert held.measure(loaded, towers)["loss"] != expected["loss"]  # other weights have another key
    assert hashed == []
    loaded.set_trainable([("image/.*", 0.0), (".*", 1.0)])
    assert held.measure(loaded, towers) == held.measure(loaded, towers)
    assert hashed == ["image"]  # of a frozen tower once
