"""The third tower: values by hand, exact gradients in every way of training, and nothing of it left behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
import transformers
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from domainclip import components, registry
from domainclip.config import loading as loading_config
from domainclip.data.batching.matches import MatchKeys
from domainclip.errors import ModelError, RecipeError
from domainclip.models import dual_encoder, image_model, loading
from domainclip.objectives.base import Sizes, Views
from domainclip.objectives.contrastive import Contrastive
from domainclip.objectives.three_towers import ThreeTowers
from domainclip.pipelines import finetune
from domainclip.strategies.full import Full
from domainclip.training import objective_inputs, step
from domainclip.training.checkpointing import checkpoint
from domainclip.training.run_context import RunOptions
from domainclip.training.views import StepBatch
from tests.support import tiny_models
from tests.support.matches import grouped
from tests.support.processes import finetuned
from tests.support.tiny_models import noise, stack


def _initial_heads(model: str | None, width: int, third: int, seed: int) -> torch.Tensor:
    return ThreeTowers(third_tower=model).initial_weights(Sizes(width, third), seed)["heads"]


def _views(b: int = 7, d: int = 6, t: int = 9, dtype: torch.dtype = torch.float32) -> Views:
    draw = torch.Generator().manual_seed(0)
    sides = [F.normalize(torch.randn(b, w, generator=draw, dtype=dtype), dim=-1) for w in (d, d, t)]
    heads = torch.randn(2, d + t, d, generator=draw, dtype=dtype)
    matches = grouped([0, 1, 2, 3, 4, 5, 1][:b])
    scale = torch.tensor(5.0, dtype=dtype)
    return Views(
        sides[0], sides[1], scale, matches=matches, third_tower=sides[2], own_weights={"heads": heads}
    )


def test_a_value_worked_by_hand() -> None:
    """Two pairs in the plane; the third tower sees the second picture as if it were the first one's opposite."""
    own = torch.eye(2)
    third = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    heads = torch.stack([torch.cat([own, own]), torch.cat([own, 2 * own])])  # lengths do not matter
    views = Views(own, own, torch.tensor(1.0), third_tower=third, own_weights={"heads": heads})
    # s = [[1, -1], [0, 0]]: rows ln(1 + e^-2) and ln 2; columns ln(1 + e^-1) and ln(1 + e^-1).
    rows = (torch.log1p(torch.exp(torch.tensor(-2.0))) + torch.log(torch.tensor(2.0))) / 2
    columns = torch.log1p(torch.exp(torch.tensor(-1.0)))
    assert ThreeTowers()(views).item() == pytest.approx(((rows + columns) / 2).item(), abs=1e-6)


def test_it_is_contrastive_with_the_projected_third_side() -> None:
    views = _views()
    image, text = (
        replace(
            views,
            image=F.normalize(one @ head[:6], dim=-1),
            text=F.normalize(views.third_tower @ head[6:], dim=-1),
        )
        for one, head in zip((views.image, views.text), views.own_weights["heads"], strict=True)
    )
    expected = (Contrastive()(image) + Contrastive()(text)) / 2
    assert ThreeTowers()(views).item() == pytest.approx(expected.item(), abs=1e-6)
    # Negative control: the pair of another's group is no negative.
    assert ThreeTowers()(replace(views, matches=None)).item() > expected.item() + 1e-3


def test_beside_contrastive_at_weight_2_the_three_losses_count_alike() -> None:
    views, scale = replace(_views(), matches=None), 5.0
    sides = [(views.image, views.text)]
    for one, head in zip((views.image, views.text), views.own_weights["heads"], strict=True):
        sides.append((one @ head[:6], views.third_tower @ head[6:]))
    own = torch.arange(7)
    ways = [
        F.cross_entropy(scale * F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T, own)
        for one, other in sides
        for a, b in ((one, other), (other, one))
    ]
    found = Contrastive()(views) + 2 * ThreeTowers()(views)
    assert found.item() == pytest.approx(3 * torch.stack(ways).mean().item(), abs=1e-5)


def test_parity_with_the_loss_of_transformers() -> None:
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    views = replace(_views(), matches=None)
    expected = [
        image_text_contrastive_loss(
            5 * F.normalize(views.third_tower @ head[6:], dim=-1) @ F.normalize(one @ head[:6], dim=-1).T
        )
        for one, head in zip((views.image, views.text), views.own_weights["heads"], strict=True)
    ]
    assert ThreeTowers()(views).item() == pytest.approx(torch.stack(expected).mean().item(), abs=1e-6)


def test_the_shares_of_the_processes_have_the_whole_as_their_mean() -> None:
    views = _views(6)
    parts = [ThreeTowers()(replace(views, local_rows=slice(at, at + 3))) for at in (0, 3)]
    assert torch.stack(parts).mean().item() == pytest.approx(ThreeTowers()(views).item(), abs=1e-6)


def test_gradients_in_double_precision() -> None:
    views = _views(5, 4, 3, torch.float64)
    inputs = [
        one.requires_grad_() for one in (views.image, views.text, views.own_weights["heads"], views.scale)
    ]

    def loss(image: Any, text: Any, heads: Any, scale: Any) -> Any:
        return ThreeTowers()(
            replace(views, image=image, text=text, own_weights={"heads": heads}, scale=scale)
        )

    assert torch.autograd.gradcheck(loss, inputs)


def test_the_first_dimensions_go_through_the_first_rows() -> None:
    views = _views()
    narrow = views.truncate(4)
    assert ThreeTowers()(narrow).isfinite()
    padded = replace(views, image=F.pad(narrow.image, (0, 2)), text=F.pad(narrow.text, (0, 2)))
    assert ThreeTowers()(narrow).item() == pytest.approx(ThreeTowers()(padded).item(), abs=1e-6)


def test_the_start_is_the_base_or_drawn() -> None:
    same = _initial_heads(None, 4, 4, 0)
    assert torch.equal(same, torch.stack([torch.cat([torch.eye(4)] * 2)] * 2))
    one, again, other = (_initial_heads("x", 4, 90, seed) for seed in (1, 1, 2))
    assert one.shape == (2, 94, 4)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(one[0, :4], torch.eye(4))
    assert one[:, 4:].std().item() == pytest.approx(90**-0.5, rel=0.1)


@pytest.mark.parametrize("micro", [1, 4, 5])
def test_caching_gives_the_gradients_of_one_batch(base: Path, micro: int) -> None:
    loaded = loading.load_model(base)
    Full().learning_rates(loaded)
    start = _initial_heads("x", loaded.width, 9, 0)
    loaded.add_objective_weights("three_towers", {"heads": start})
    pixels = stack(loaded.image_preprocessor(noise(40, 36, seed=i)) for i in range(9))
    third = F.normalize(torch.randn(9, 9, generator=torch.Generator().manual_seed(1)), dim=-1)
    texts = [f"a red circle {i}" for i in range(9)]
    batch = StepBatch(
        pixels, None, texts, None, MatchKeys.of_groups(torch.arange(9)), None, third_tower=third
    )
    terms = components.WeightedObjectives(
        {"contrastive": (1.0, Contrastive()), "three_towers": (2.0, ThreeTowers())}
    )
    found = []
    for held in (None, micro):
        step.compute_gradients(loaded, loaded, batch, terms, held, 0, Accelerator(cpu=True))
        found.append({name: w.grad.clone() for name, w in loaded.weights().items() if w.grad is not None})
        loaded.zero_grad(set_to_none=True)
    assert found[0].keys() == found[1].keys() == loaded.weights().keys()
    assert found[0]["extra/objectives.three_towers.heads"].abs().max() > 1e-3
    for name, grad in found[0].items():
        assert torch.allclose(grad, found[1][name], atol=1e-5), name


# --- image models alone --------------------------------------------------------------------------------


def _vit(folder: Path, kind: str = "vit") -> Path:
    kinds: dict[str, Any] = {
        "vit": (transformers.ViTConfig, transformers.ViTModel),
        "bare": (
            transformers.ViTConfig,
            lambda config: transformers.ViTModel(config, add_pooling_layer=False),
        ),
        "dinov2": (transformers.Dinov2Config, transformers.Dinov2Model),
    }
    config, make = kinds[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        make(config(**{**tiny_models._vision(), "hidden_size": 48})).save_pretrained(folder)
    options = {"image_processor_type": "ViTImageProcessor", **tiny_models._exact_options(resample=2)}
    options = options if kind != "dinov2" else tiny_models._crop_processor("BitImageProcessor")
    (folder / "preprocessor_config.json").write_text(json.dumps(options))
    return folder


@pytest.mark.parametrize("kind", ["vit", "bare", "dinov2"])
@torch.no_grad()
def test_an_image_model_says_what_transformers_says(tmp_path: Path, kind: str) -> None:
    folder = _vit(tmp_path / kind, kind)
    tower = image_model.load_image_model(str(folder))
    pictures = [noise(32, 32, seed=i) for i in range(3)]
    found = tower.encode_image(stack(tower.image_preprocessor(one) for one in pictures))
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    out = transformers.AutoModel.from_pretrained(folder)(**processor(pictures, return_tensors="pt"))
    expected = out.last_hidden_state[:, 0] if kind == "bare" else out.pooler_output
    assert torch.allclose(found, F.normalize(expected, dim=-1), atol=1e-5)
    other = image_model.load_image_model(str(_vit(tmp_path / "other", "vit" if kind != "vit" else "dinov2")))
    assert tower.frozen_fingerprint("image") != other.frozen_fingerprint("image")
    assert tower.frozen_fingerprint("image") == image_model.load_image_model(str(folder)).frozen_fingerprint(
        "image"
    )


def test_what_is_no_image_model_is_refused(base: Path, tmp_path: Path) -> None:
    assert isinstance(image_model.load_image_model(str(base)), dual_encoder.DualEncoder)
    with pytest.raises(ModelError) as caught:
        image_model.load_image_model(str(tmp_path))
    assert str(caught.value) == f'image model "{tmp_path}": no model in the folder, such as config.json'
    folder = _vit(tmp_path / "cut")
    weights = load_file(folder / "model.safetensors")
    name = sorted(name for name in weights if "pooler" not in name)[0]
    weights.pop(name)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError) as caught:
        image_model.load_image_model(str(folder))
    assert str(caught.value) == f'image model "{folder}": its file has no weight "{name}"'
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError) as caught:
        image_model.load_image_model(str(folder))
    assert str(caught.value) == f'image model "{folder}": no weights in the folder, such as model.safetensors'


# --- whole runs ----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))


def _finetune(file: Path, folder: Path, *changes: str, resume: bool = False) -> None:
    finetune.finetune(
        loading_config.load_recipe(str(file), ["probes=[zero_shot]", *changes]),
        RunOptions(folder=folder, resume=resume, quiet=True),
    )


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _objectives(third: Path | None, weight: float = 2.0) -> str:
    said = f", third_tower: {third}" if third else ""
    return f"objectives={{contrastive: {{}}, three_towers: {{weight: {weight}{said}}}}}"


def test_at_weight_0_it_is_contrastive_bit_by_bit(recipe_file: Path, tmp_path: Path) -> None:
    _finetune(recipe_file, tmp_path / "plain", "objectives={contrastive: {}}")
    _finetune(recipe_file, tmp_path / "none", _objectives(None, 0.0))
    _finetune(recipe_file, tmp_path / "some", _objectives(None))
    plain, none, some = (
        load_file(tmp_path / n / "model" / "model.safetensors") for n in ("plain", "none", "some")
    )
    assert all(torch.equal(plain[name], none[name]) for name in plain)
    assert plain.keys() == none.keys() == some.keys()  # the heads are left behind
    assert not all(torch.equal(plain[name], some[name]) for name in plain)


@pytest.mark.parametrize("strategy", ["{lora: {rank: 2}}", "two_stage"])
def test_it_goes_with_adapters_and_stages(recipe_file: Path, tmp_path: Path, strategy: str) -> None:
    changes = [f"strategy={strategy}", _objectives(_vit(tmp_path / "vit"))]
    _finetune(recipe_file, tmp_path / "run", *changes, "train.micro_batch_size=5")
    lines = _lines(tmp_path / "run")
    assert lines[-1]["terms"]["three_towers"] < lines[0]["terms"]["three_towers"]
    end, _ = checkpoint.load(tmp_path / "run" / "checkpoints" / "step-000008")
    start = _initial_heads("x", 16, 48, 0)
    assert not torch.allclose(end["weights"]["extra/objectives.three_towers.heads"], start, atol=1e-3)
    assert "extra/objectives.three_towers.heads:exp_avg" in end["optimizer"]
    assert loading.load_model(tmp_path / "run" / "model").width == 16


def test_two_third_towers_are_refused() -> None:
    """A run has one set of heads: the later one would have taken the earlier one's place, unsaid."""
    inner = registry.build("objectives", "matryoshka", {"widths": [4], "objective": {"three_towers": {}}}, "")
    terms = components.WeightedObjectives(
        {"three_towers": (1.0, ThreeTowers(third_tower="some/one")), "matryoshka": (1.0, inner)}
    )
    with pytest.raises(RecipeError) as caught:
        objective_inputs.check_objectives(terms, cast(dual_encoder.DualEncoder, None), stream=False)
    assert str(caught.value) == (
        "objectives: three_towers and matryoshka both have a third tower, and a run has one: leave one out"
    )


def test_resumed_it_ends_bit_equal(recipe_file: Path, tmp_path: Path) -> None:
    import shutil

    changes = [_objectives(_vit(tmp_path / "vit"))]
    _finetune(recipe_file, tmp_path / "run", *changes)
    before = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-000008")
    _finetune(tmp_path / "run" / "recipe.yaml", tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == before


def test_two_processes_train_what_one_does(recipe_file: Path, tmp_path: Path) -> None:
    changes = [_objectives(_vit(tmp_path / "vit")), "train.micro_batch_size=3", "probes=[zero_shot]"]
    _finetune(recipe_file, tmp_path / "alone", *changes)
    finetuned(recipe_file, tmp_path / "together", *changes)
    one, two = _lines(tmp_path / "alone"), _lines(tmp_path / "together")
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], abs=1e-4)
    heads = [
        checkpoint.load(tmp_path / name / "checkpoints" / "step-000008")[0]["weights"][
            "extra/objectives.three_towers.heads"
        ]
        for name in ("alone", "together")
    ]
    assert torch.allclose(*heads, atol=5e-3)
