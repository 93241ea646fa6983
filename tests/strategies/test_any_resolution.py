"""Other image sizes and dropped patches: positions by hand, the embeddings that stay, and what learns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, CLIPModel

from domainclip.config import loading as loading_config
from domainclip.data.batching.batch import collate
from domainclip.errors import DomainclipError, ModelError, RecipeError
from domainclip.models import image_resolution, loading, patch_dropout
from domainclip.models.patch_dropout import PatchDropout
from domainclip.models.saving import save_model
from domainclip.pipelines.finetune import finetune
from domainclip.pipelines.inputs import load_inputs
from domainclip.pipelines.training_setup import make_setup
from domainclip.report.results_file import load as load_results
from domainclip.strategies.any_resolution import AnyResolution
from domainclip.training.dropped_patches import with_patches_read
from domainclip.training.run_context import RunOptions
from domainclip.training.setup import to_step_batch
from tests.support import tiny_models
from tests.support.tiny_models import noise, stack


def _pixels(model: Any, count: int = 2) -> dict[str, torch.Tensor]:
    return stack(model.image_preprocessor(noise(80, 72, seed=i)) for i in range(count))


def test_positions_by_hand_and_the_class_token_stays() -> None:
    side = torch.arange(4.0)
    ramp = (side[:, None] + 10 * side).reshape(16, 1)
    table = torch.cat([torch.full((1, 1), 99.0), ramp])
    grown = image_resolution.interpolate_positions(table, 1, 8)
    assert grown.shape == (65, 1)
    assert grown[0].item() == 99
    inside = grown[1:].reshape(8, 8)[3:5, 3:5]  # whose four neighbours lie inside the old grid
    # New cells 3 and 4 lie at 1.25 and 1.75 of the old ones. With the cubic kernel of A = −0.75, the old values
    # 0, 1, 2, 3 have the weights −0.105469, 0.878906, 0.261719, −0.035156 at 1.25: 1.296875.
    centre = torch.tensor([1.296875, 1.703125])
    assert torch.allclose(inside, centre[:, None] + 10 * centre, atol=1e-4)
    assert torch.equal(image_resolution.interpolate_positions(table, 1, 4), table)


@torch.no_grad()
def test_the_embeddings_are_those_of_transformers_own_interpolation(tmp_path: Path) -> None:
    """Parity: `interpolate_pos_encoding` of the base at the new size."""
    folder = tiny_models.tiny_clip(tmp_path / "base")
    model = loading.load_model(folder)
    AnyResolution(image_size=48).learning_rates(model)
    assert (model.image_size, model.image_preprocessor.size) == ((48, 48), (48, 48))
    pixels = _pixels(model)
    inputs = model.pixel_inputs(pixels)
    plain = CLIPModel.from_pretrained(folder).eval()
    found = plain.get_image_features(**inputs, interpolate_pos_encoding=True).pooler_output
    ours = model.encode_image(pixels)
    assert torch.allclose(ours, torch.nn.functional.normalize(found, dim=-1), atol=1e-5)


@pytest.mark.parametrize("make", [tiny_models.tiny_clip, tiny_models.tiny_siglip])
@torch.no_grad()
def test_the_saved_model_is_a_plain_one_of_the_new_size(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    model = loading.load_model(make(tmp_path / "base"))
    AnyResolution(image_size=48, patch_dropout=0.5).learning_rates(model)
    model.eval()
    save_model(model, tmp_path / "model")
    again = loading.load_model(tmp_path / "model")
    assert again.image_size == (48, 48)
    assert torch.equal(again.encode_image(_pixels(again)), model.encode_image(_pixels(model)))
    assert AutoModel.from_pretrained(tmp_path / "model").config.vision_config.image_size == 48


def test_the_chosen_patches_by_hand() -> None:
    tokens = torch.arange(2 * 5.0).reshape(2, 5, 1)  # a class token and four patches
    part = patch_dropout.chosen_tokens(tokens, 1, torch.tensor([[0, 3], [1, 2]]))
    assert part[..., 0].tolist() == [[0, 1, 4], [5, 7, 8]]
    drawn = PatchDropout(1, 16, 0.75).draw([7, 8, 7])
    assert drawn.shape == (3, 4)
    assert all(len(set(row)) == 4 and row == sorted(row) for row in drawn.tolist())
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
    assert PatchDropout(0, 16, 0.99).draw([1]).shape == (1, 1)


@torch.no_grad()
def test_patches_are_left_out_where_the_images_of_a_step_name_those_to_read(base: Path) -> None:
    model = loading.load_model(base)
    AnyResolution(patch_dropout=0.5).learning_rates(model)
    model.set_train_mode({"image", "text"})
    pixels = _pixels(model)
    whole = model.encode_image(pixels)
    assert torch.equal(whole, loading.load_model(base).encode_image(pixels))
    part = with_patches_read(pixels, model, 0, 0, [4, 9])
    assert torch.equal(model.encode_image(part), model.encode_image(part))
    assert not torch.allclose(model.encode_image(part), whole, atol=1e-4)
    assert torch.equal(model.encode_image(pixels), whole)  # nothing is left of the step before
    every = {**pixels, patch_dropout.PATCHES_READ: torch.arange(16).expand(2, 16)}
    assert torch.allclose(model.encode_image(every), whole, atol=1e-6)
    assert not model.has_token_embeddings("image")  # whose patches would be others each time


def test_the_draw_is_a_function_of_seed_step_item_and_group_alone(base: Path, corpus: Path) -> None:
    recipe = _recipe(base, corpus, "objectives={contrastive: {}, image_self_supervision: {}}")
    setup = make_setup(load_inputs(recipe, "train"))
    stage = setup.stage_inputs()

    def read(rows: list[int], step: int) -> torch.Tensor:
        torch.manual_seed(len(rows))  # the state of the generator decides nothing
        batch = to_step_batch(
            stage, collate([setup.pairs[0, row] for row in rows]), step, torch.device("cpu")
        )
        assert batch.image is not None
        assert batch.groups == ("image_2",)
        return batch.image[patch_dropout.PATCHES_READ].reshape(2, len(rows), -1)

    whole = read([1, 5, 2, 8], 3)
    assert whole.shape == (2, 4, 18)  # half of 6 by 6
    assert torch.equal(torch.cat([read([1, 5], 3), read([2, 8], 3)], dim=1), whole)  # as two processes do
    assert torch.equal(read([8, 2, 5, 1], 3), whole.flip(1))
    assert not torch.equal(read([1, 5, 2, 8], 4), whole)
    assert not torch.equal(whole[0], whole[1])  # the second view is read by other patches


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "strategy.any_resolution: without image_size and patch_dropout it is full"),
        (
            {"patch_dropout": 0.5, "image_lr_factor": 0.0},
            "strategy.any_resolution.patch_dropout: a frozen image",
        ),
    ],
)
def test_options_that_do_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        AnyResolution(**options)
    assert str(caught.value).startswith(message)


def test_sizes_and_bases_that_do_not_fit_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match="image_size 50 is no multiple of its patches of 8 pixels: take 48 or 56"
    ):
        AnyResolution(image_size=50).learning_rates(loading.load_model(base))
    naflex = loading.load_model(tiny_models.tiny_siglip2_naflex(tmp_path / "naflex"))
    with pytest.raises(ModelError, match="has no table of positions for one size"):
        AnyResolution(image_size=64).learning_rates(naflex)


def _recipe(base: Path, corpus: Path, *changes: str) -> Any:
    columns = "{image: file_name, texts: text, labels: label, group: group_id, split: split}"
    given = [
        f"corpus={{path: {corpus}, min_items: 1, templates: ['a {{}} square'], columns: {columns}}}",
        *(
            f"base.path={base}",
            "train.epochs=1",
            "train.batch_size=20",
            "strategy.any_resolution.image_size=48",
        ),
        *("probes=[zero_shot]", "evaluate.bootstrap_samples=100", *changes),
    ]
    return loading_config.load_recipe("any_resolution", given)


def test_a_run_of_the_recipe_is_compared_with_the_base_at_its_own_size(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    finetune(_recipe(base, corpus), RunOptions(folder=tmp_path / "run", quiet=True))
    results = load_results(tmp_path / "run" / "results.json")
    assert loading.load_model(tmp_path / "run").image_size == (48, 48)
    assert any("images of 32 by 32, 48 by 48 pixels" in text for text in results.warnings)
    assert results.valid


def test_objectives_that_read_patches_are_refused_with_dropped_ones(base: Path, corpus: Path) -> None:
    recipe = _recipe(base, corpus, "objectives={contrastive: {}, token_alignment: {}}")
    with pytest.raises(DomainclipError, match="token_alignment"):
        make_setup(load_inputs(recipe, "train"))
