"""Several pictures as one study: pooled by hand, starting as the mean, saved beside the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from safetensors.torch import load_file
from transformers import CLIPModel

from domainclip.config import loading as loading_config
from domainclip.config.recipe import Base
from domainclip.data import corpus
from domainclip.data.batching.batch import collate
from domainclip.data.batching.pairs import Pairs
from domainclip.data.corpus import Corpus
from domainclip.data.images import frames
from domainclip.data.schema import features
from domainclip.errors import ModelError, RecipeError
from domainclip.evaluation.embedding_cache import EmbeddingCache
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.hub.allowlist import is_pushed_name
from domainclip.models import dual_encoder, frame_pooling, loading
from domainclip.models.saving import save_model
from domainclip.pipelines import inputs
from domainclip.pipelines.evaluated_models import load_models
from domainclip.pipelines.finetune import finetune
from domainclip.pipelines.training_setup import make_setup
from domainclip.report.results_file import load as load_results
from domainclip.strategies.full import Full
from domainclip.strategies.locked_image import LockedImage
from domainclip.strategies.locked_text import LockedText
from domainclip.strategies.long_text import LongText
from domainclip.strategies.lora import Lora
from domainclip.strategies.multi_frame import MultiFrame
from domainclip.strategies.prompt_learning import PromptLearning
from domainclip.strategies.two_stage import TwoStage
from domainclip.training.precompute import cache_features
from domainclip.training.run_context import RunOptions
from domainclip.training.setup import TrainingSetup
from tests.support.tiny_models import noise, stack, tiny_siglip2_naflex

POOLS = ("mean", "weighted", "temporal")


def _study(loaded: dual_encoder.DualEncoder, counts: list[int], most: int = 4) -> dict[str, torch.Tensor]:
    """Studies of so many pictures, as a batch."""
    return stack(
        frames.stack_frames(
            [loaded.image_preprocessor(noise(40, 36, 10 * i + k)) for k in range(count)], most
        )
        for i, count in enumerate(counts)
    )


def _singles(loaded: dual_encoder.DualEncoder, study: int, count: int) -> torch.Tensor:
    with torch.no_grad():
        return loaded.encode_image(
            stack(loaded.image_preprocessor(noise(40, 36, 10 * study + k)) for k in range(count))
        )


@pytest.mark.parametrize(
    ("there", "most", "expected"),
    [(3, 4, [0, 1, 2]), (4, 4, [0, 1, 2, 3]), (9, 4, [0, 2, 5, 8]), (100, 2, [0, 99]), (5, 1, [0])],
)
def test_frames_are_taken_evenly(there: int, most: int, expected: list[int]) -> None:
    assert frames.sample_frames(range(there), most) == expected


def test_padding_is_no_frame() -> None:
    found = frames.stack_frames([{"pixels": np.full((2, 2), 7, np.uint8)}] * 2, 3)
    assert found["shown"].tolist() == [True, True, False]
    assert found["pixels"][:, 0, 0].tolist() == [7, 7, 0]


@pytest.mark.parametrize("pool", POOLS)
def test_starts_as_the_mean_of_unit_vectors(base: Path, pool: Any) -> None:
    loaded = loading.load_model(base)
    MultiFrame(pooling=pool, layers=2).learning_rates(loaded)
    with torch.no_grad():
        found = loaded.encode_image(_study(loaded, [3, 1, 4]))
    for study, count in enumerate((3, 1, 4)):
        expected = F.normalize(_singles(loaded, study, count).mean(0), dim=-1)
        assert torch.allclose(found[study], expected, atol=1e-6), (pool, study)


def test_weighted_by_hand() -> None:
    module = frame_pooling.AttentionPooling(2)
    module.query.data = torch.tensor([np.log(3.0), 0.0], dtype=torch.float32)
    rows = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    found = module(rows, torch.tensor([[True, True, False]]))
    assert torch.allclose(found, torch.tensor([[0.75, 0.25]]))  # e^{ln 3} to e^0; the third is padding


@pytest.mark.parametrize("pool", ["weighted", "temporal"])
def test_what_is_learnt_says_something_and_padding_nothing(base: Path, pool: Any) -> None:
    loaded = loading.load_model(base)
    MultiFrame(pooling=pool).learning_rates(loaded)
    _move(loaded)
    with torch.no_grad():
        batch = _study(loaded, [3, 2])
        found = loaded.encode_image(batch)
        alone = torch.cat([loaded.encode_image({k: v[i : i + 1] for k, v in batch.items()}) for i in (0, 1)])
        assert torch.allclose(found, alone, atol=1e-6)
        batch["pixels"][~batch["shown"]] = 99
        assert torch.equal(loaded.encode_image(batch), found)
    mean = torch.stack([F.normalize(_singles(loaded, i, n).mean(0), dim=-1) for i, n in enumerate((3, 2))])
    assert not torch.allclose(found, mean, atol=1e-3)
    assert torch.allclose(found.norm(dim=-1), torch.ones(2), atol=1e-6)


def test_the_order_counts_for_the_temporal_one_only(base: Path) -> None:
    for pool in POOLS:
        loaded = loading.load_model(base)
        MultiFrame(pooling=pool).learning_rates(loaded)
        _move(loaded)
        with torch.no_grad():
            batch = _study(loaded, [4])
            turned = {**batch, "pixels": batch["pixels"].flip(1)}
            same = torch.allclose(loaded.encode_image(batch), loaded.encode_image(turned), atol=1e-5)
        assert same == (pool != "temporal")


@pytest.mark.parametrize("pool", ["weighted", "temporal"])
def test_gradients(pool: str) -> None:
    torch.manual_seed(0)
    module = frame_pooling.FramePooling(3, pool, 1).make_module(4)
    assert module is not None
    module = module.double()
    for weight in module.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    shown = torch.tensor([[True, True, True], [True, False, False]])
    rows = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda rows: module(rows, shown), rows)


def test_what_learns(base: Path) -> None:
    loaded = loading.load_model(base)
    factors = MultiFrame(
        pooling="temporal",
        image_lr_factor=0,
        text_lr_factor=0.5,
        pooling_lr_factor=3,
        train_logit_scale=False,
    ).learning_rates(loaded)
    by = {
        name.split("_pooling.")[0].split("/v")[0].split("/t")[0]: factor for name, factor in factors.items()
    }
    assert by == {"image": 0.0, "text": 0.5, "scale/logit_scale": 0.0, "image/image": 3.0}
    assert not loaded.uses_weight_decay("image/image_pooling.place")
    assert loaded.uses_weight_decay("image/image_pooling.out.weight")
    assert {name for name, w in loaded.weights().items() if w.requires_grad} == {
        n for n, f in factors.items() if f
    }
    # The pooling belongs to the image side: its gradient is wanted, although the tower is locked.
    assert loaded.first_trainable_layer("image") is not None
    loaded = loading.load_model(base)
    MultiFrame(image_lr_factor=0).learning_rates(loaded)
    assert loaded.first_trainable_layer("image") is None


@pytest.mark.parametrize("pool", POOLS)
def test_saved_it_loads_here_and_its_towers_in_plain_transformers(
    base: Path, tmp_path: Path, pool: Any
) -> None:
    loaded = loading.load_model(base)
    plain = loaded.fingerprint("image")
    MultiFrame(pooling=pool, layers=2).learning_rates(loaded)
    _move(loaded)
    assert loaded.fingerprint("image") != plain  # what is kept of single pictures is not found again
    save_model(loaded, tmp_path / "model")
    again = loading.load_model(tmp_path / "model")
    assert again.frames == 4
    assert again.fingerprint("image") == loaded.fingerprint("image")
    with torch.no_grad():
        batch = _study(loaded, [2, 4])
        assert torch.equal(again.encode_image(batch), loaded.encode_image(batch))
    CLIPModel.from_pretrained(tmp_path / "model")
    written = {file.name for file in (tmp_path / "model").iterdir()}
    assert ("pooling.safetensors" in written) == (pool != "mean")
    assert is_pushed_name("pooling.json")
    assert is_pushed_name("pooling.safetensors")
    assert not is_pushed_name("pooling.bin")
    with pytest.raises(RecipeError) as caught:
        MultiFrame(frames=8, pooling=pool).learning_rates(again)
    assert str(caught.value) == (
        "strategy.multi_frame: the base already pools its images: "
        f"use frames 4, pooling {pool}, layers 2, as the base does"
    )


@pytest.mark.parametrize(
    ("strategy", "factor"),
    [
        (Full(image_lr_factor=0.5, layer_decay=0.7), 0.5),
        (Full(last_layers=1), 1.0),
        (LockedImage(), 0.0),
        (LockedText(), 1.0),
        (LongText(image_lr_factor=0), 0.0),
        (TwoStage(image_lr_factor=0.5), 0.05),
        (Lora(rank=2, last_layers=1), 0.0),
        (PromptLearning(), 0.0),
    ],
)
def test_a_base_that_pools_is_tuned_further(base: Path, tmp_path: Path, strategy: Any, factor: float) -> None:
    loaded = loading.load_model(base)
    MultiFrame(pooling="weighted").learning_rates(loaded)
    _move(loaded)
    save_model(loaded, tmp_path / "model")
    again = loading.load_model(tmp_path / "model")
    factors = strategy.learning_rates(again)
    assert factors["image/image_pooling.query"] == pytest.approx(factor)
    assert again.weights()["image/image_pooling.query"].requires_grad == (factor > 0)
    save_model(again, tmp_path / "further")
    third = loading.load_model(tmp_path / "further")
    assert torch.equal(
        third.added_modules["image_pooling"].query, loaded.added_modules["image_pooling"].query
    )


def test_a_pooling_that_is_not_known(base: Path, tmp_path: Path) -> None:
    loaded = loading.load_model(base)
    MultiFrame().learning_rates(loaded)
    save_model(loaded, tmp_path / "model")
    (tmp_path / "model" / "pooling.json").write_text('{"frames": 1000000, "layers": 1, "pool": "mean"}')
    with pytest.raises(ModelError) as caught:
        loading.load_model(tmp_path / "model")
    assert str(caught.value) == (
        f'base "{tmp_path / "model"}": its pooling.json cannot be read: '
        "pool, frames or layers has a value that this version does not support"
    )


def test_patches_of_their_own_shapes_are_pooled_too(tmp_path: Path) -> None:
    loaded = loading.load_model(tiny_siglip2_naflex(tmp_path / "base"))
    MultiFrame().learning_rates(loaded)
    with torch.no_grad():
        found = loaded.encode_image(_study(loaded, [2, 3]))
    assert torch.allclose(found[1], F.normalize(_singles(loaded, 1, 3).mean(0), dim=-1), atol=1e-6)


def test_evaluation_sees_the_same_pictures(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    items = _items(tmp_path, [1, 3, 6])
    model, other = loading.load_model(base), loading.load_model(base)
    MultiFrame(frames=3).learning_rates(model)
    pooled, single = (
        CachedEncoder(model, EmbeddingCache.make(on_disk=True)),
        CachedEncoder(other, EmbeddingCache.make(on_disk=True)),
    )
    found = pooled.images(items)
    for row, shown in enumerate(([0], [0, 1, 2], [0, 2, 5])):
        with torch.no_grad():
            each = other.encode_image(
                stack(other.image_preprocessor(noise(40, 36, 10 * row + k)) for k in shown)
            )
        assert np.allclose(found[row], F.normalize(each.mean(0), dim=-1), atol=1e-6)
    assert np.allclose(single.images(items)[0], found[0], atol=1e-6)  # one picture is its own mean
    assert not np.allclose(single.images(items)[1], found[1], atol=1e-3)
    again = CachedEncoder(model, EmbeddingCache.make(on_disk=True))
    assert np.array_equal(again.images(items), found)


def test_a_picture_that_cannot_be_read_is_left_out_of_its_study(base: Path, tmp_path: Path) -> None:
    items = _items(tmp_path, [2, 2])
    (tmp_path / "0-0.png").write_bytes(b"no picture")
    model = loading.load_model(base)
    MultiFrame(frames=3).learning_rates(model)
    found = CachedEncoder(model).images(items)
    with torch.no_grad():
        left = model.encode_image(stack([model.image_preprocessor(noise(40, 36, 1))]))
    assert np.allclose(found[0], left[0], atol=1e-6)


def test_models_that_are_compared_see_the_same_images(base: Path, tmp_path: Path) -> None:
    pooled = loading.load_model(base)
    MultiFrame(frames=3).learning_rates(pooled)
    save_model(pooled, tmp_path / "pooled")
    of_run = Base(path=str(base))
    alone = load_models(["base", str(base)], of_run).models
    assert [model.frames for model in alone] == [1, 1]
    loaded = load_models(["base", str(tmp_path / "pooled"), str(base)], of_run).models
    assert [model.frames for model in loaded] == [3, 3, 3]
    assert loaded[0].frame_pooling is None  # by their mean, and nothing of that is saved with it


def _move(loaded: dual_encoder.DualEncoder) -> None:
    torch.manual_seed(3)
    for weight in loaded.added_modules.parameters():
        weight.data += 0.5 * torch.randn_like(weight)


def _items(folder: Path, counts: list[int]) -> Dataset:
    rows: dict[str, list[Any]] = {name: [] for name in features()}
    for i, count in enumerate(counts):
        paths = [folder / f"{i}-{k}.png" for k in range(count)]
        for k, path in enumerate(paths):
            noise(40, 36, 10 * i + k).save(path)
        pictures = [{"path": str(path), "bytes": None} for path in paths]
        values = (str(i), pictures[0], pictures[1:], [f"caption {i}"], ["en"], [], str(i), str(i), "{}")
        for name, value in zip(features(), values, strict=True):
            rows[name].append(value)
    return Dataset.from_dict(rows, features=features())


# --- whole runs ----------------------------------------------------------------------------------------


@pytest.fixture
def views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Items of the corpus get up to five further pictures: those of the items behind them."""
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    load = corpus.load_corpus

    def with_views(*given: Any, **options: Any) -> Corpus:
        loaded = load(*given, **options)
        for name, split in loaded.splits.items():
            images, ids = split["image"][:], split["id"][:]
            views = [images[i + 1 : i + 1 + i % 6] for i in range(len(split))]
            more = [[loaded.digests[id] for id in ids[i + 1 : i + 1 + i % 6]] for i in range(len(split))]
            loaded.view_digests.update({id: own for id, own in zip(ids, more, strict=True) if own})
            changed = split.remove_columns("views").add_column("views", views, feature=features()["views"])
            loaded.splits[name] = changed.select_columns(list(features()))
        return loaded

    monkeypatch.setattr(inputs, "load_corpus", with_views)


def _job(recipe_file: Path, *changes: str) -> TrainingSetup:
    ready = inputs.load_inputs(loading_config.load_recipe(str(recipe_file), changes), "train")
    return make_setup(ready)


def test_training_pairs_show_all_pictures(tmp_path: Path) -> None:
    items = _items(tmp_path, [1, 3, 6])
    (tmp_path / "1-1.png").write_bytes(b"no picture")
    pairs = Pairs(items, lambda picture: {"pixels": np.asarray(picture)}, frames=3)
    assert not pairs.views_change
    batch = collate([pairs[0, 0], pairs[1, 1], pairs[0, 2]])
    assert batch.image is not None
    assert batch.image["shown"].tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    for row, place, frame in ((0, 0, 0), (1, 0, 0), (1, 1, 2), (2, 1, 2), (2, 2, 5)):
        expected = np.asarray(noise(40, 36, 10 * row + frame))
        assert np.array_equal(batch.image["pixels"][row, place], expected), (row, place)
    assert [bad.location for bad in batch.unusable] == ["item 1 view 1"]
    for k in (0, 2):
        (tmp_path / f"1-{k}.png").write_bytes(b"no picture")
    assert collate([pairs[0, 1]]).index.tolist() == [2]  # an item of which nothing can be read


@pytest.mark.usefixtures("views")
def test_what_is_kept_gives_the_weights_of_the_plain_path(recipe_file: Path, tmp_path: Path) -> None:
    found = {}
    for name, keep in (("cached", "true"), ("plain", "false")):
        changes = [
            "strategy={multi_frame: {image_lr_factor: 0, frames: 3}}",
            f"train.cache_features={keep}",
            "probes=[zero_shot]",
        ]
        finetune(
            loading_config.load_recipe(str(recipe_file), changes),
            RunOptions(folder=tmp_path / name, quiet=True),
        )
        found[name] = load_file(tmp_path / name / "model" / "model.safetensors")
    for name, tensor in found["cached"].items():
        assert torch.allclose(tensor, found["plain"][name], atol=1e-5), name


@pytest.mark.usefixtures("views")
def test_base_and_adapted_are_measured_on_the_same_pictures(recipe_file: Path, tmp_path: Path) -> None:
    strategies = {
        "mean": "{multi_frame: {frames: 3}}",
        "temporal": "{multi_frame: {frames: 3, pooling: temporal}}",
        "single": "full",
    }
    said = {}
    for name, strategy in strategies.items():
        changes = [f"strategy={strategy}", "train.epochs=1", "probes=[retrieval]"]
        finetune(
            loading_config.load_recipe(str(recipe_file), changes),
            RunOptions(folder=tmp_path / name, quiet=True),
        )
        said[name] = [row.base for row in load_results(tmp_path / name / "results.json").results]
    assert said["mean"] == said["temporal"]
    assert said["mean"] != said["single"]  # negative control
    assert loading.load_model(tmp_path / "temporal" / "model").frames == 3


@pytest.mark.usefixtures("views")
@pytest.mark.parametrize(
    ("strategy", "notes"),
    [
        ("{multi_frame: {image_lr_factor: 0}}", ["cached: embeddings of 40 images, 0.00 GB in {cache}"]),
        (
            "{multi_frame: {image_lr_factor: 0, pooling: temporal}}",
            ["images are not cached: the pooling of several images of an item is learned"],
        ),
        ("{multi_frame: {}}", []),
    ],
)
def test_what_is_kept(recipe_file: Path, tmp_path: Path, strategy: str, notes: list[str]) -> None:
    stage = cache_features(_job(recipe_file, f"strategy={strategy}").stage_inputs())
    assert list(stage.notes) == [note.format(cache=tmp_path / "cache") for note in notes]


@pytest.mark.usefixtures("views")
def test_another_view_in_a_study_is_another_entry(recipe_file: Path) -> None:
    one, other = (
        _job(recipe_file, f"strategy={{multi_frame: {{image_lr_factor: 0, frames: {n}}}}}") for n in (3, 2)
    )
    assert len(next(iter(one.digests.values())).split()) == 1  # the first item has no further pictures
    assert {len(said.split()) for said in one.digests.values()} == {1, 2, 3, 4, 5, 6}
    first, second = (cache_features(setup.stage_inputs()) for setup in (one, other))
    assert first.notes[0].startswith("cached: ")
    assert second.notes[0].startswith("cached: ")  # not found again


@pytest.mark.parametrize(("name", "needs"), [("two_views", "image_2"), ("three_towers", "third_tower")])
def test_objectives_that_look_at_one_picture_are_refused(recipe_file: Path, name: str, needs: str) -> None:
    with pytest.raises(RecipeError) as caught:
        _job(recipe_file, "strategy=multi_frame", f"objectives={{contrastive: {{}}, {name}: {{}}}}")
    assert str(caught.value) == (
        f"objectives.{name}: needs {needs}, and strategy.multi_frame shows several images of an item: "
        "leave one of the two out"
    )
