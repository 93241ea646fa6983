"""The last layer where it is read: the same embeddings and gradients as the whole layer, for less work."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from domainclip import components
from domainclip.config.training import TrainConfig
from domainclip.models import last_layer, layers, loading
from domainclip.models.dual_encoder import DualEncoder
from domainclip.objectives.contrastive import Contrastive
from domainclip.strategies.full import Full
from domainclip.strategies.lora import Lora
from domainclip.training import layer_execution, step
from domainclip.training.views import StepBatch
from tests.support import tiny_models

FAMILIES: dict[str, Callable[..., Path]] = {
    make.__name__.removeprefix("tiny_"): make for make in tiny_models.FAMILIES
}
# Of each family the towers that are made of one token, in layers that are known.
ONCE = {
    "clip": {"image", "text"},
    "metaclip_2": {"image", "text"},
    "siglip": {"text"},
    "siglip2_naflex": {"text"},
    "chinese_clip": {"image"},
    "altclip": {"image"},
    "dual_encoder": {"image"},
}
STRATEGIES = {
    "full": Full(),
    "full, last layer": Full(last_layers=1),
    "full, both layers": Full(last_layers=2),
    "attention": Lora(rank=2, dropout=0.0),
    "attention+mlp": Lora(rank=2, dropout=0.0, targets="attention+mlp"),
    "attention+mlp, last layer": Lora(rank=2, dropout=0.0, targets="attention+mlp", last_layers=1),
}
TEXTS = [
    "a red circle",
    "two small squares on the left of a green dog",
    "cat",
    "no effusion with pneumonia",
    "",
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("families")
    return {name: make(folder / name) for name, make in FAMILIES.items()}


def _ready(base: Path, strategy: Any = None) -> DualEncoder:
    torch.manual_seed(0)
    loaded = loading.load_model(base)
    (strategy or Full()).learning_rates(loaded)
    with torch.no_grad():
        for name, weight in loaded.weights().items():
            if ".lora_B." in name:  # an adapter starts as nothing: give it something to say
                weight.normal_(0, 0.05)
            if name.endswith("bias"):  # and biases as zero
                weight.add_(torch.randn_like(weight), alpha=0.1)
    loaded.set_train_mode({"image", "text"})
    return loaded


def _inputs(loaded: DualEncoder) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    pictures = [loaded.image_preprocessor(tiny_models.noise(30 + 9 * i, 40, seed=i)) for i in range(5)]
    return tiny_models.stack(pictures), loaded.text_tokenizer(TEXTS)


def _run(loaded: DualEncoder, image: Any, text: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Both embeddings, and the gradients of something that depends on every number of them."""
    found = torch.cat([rows for rows in loaded(image, text)[:2] if rows is not None])
    (found * torch.linspace(-1, 1, found.numel()).reshape(found.shape)).sum().backward()
    gradients = {name: w.grad.clone() for name, w in loaded.weights().items() if w.grad is not None}
    loaded.zero_grad(set_to_none=True)
    return found.detach(), gradients


def _plainly(loaded: DualEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, every layer whole."""
    monkeypatch.setattr(loaded, "pooled_position", lambda *_: None)


def _taken(loaded: DualEncoder) -> set[str]:
    """The towers whose last layer is run at one place."""
    image, text = _inputs(loaded)
    batches = {"image": image, "text": text}
    return {
        part
        for part, batch in batches.items()
        if not isinstance(
            last_layer.compute_only_at(loaded.tower(part), loaded.pooled_position(part, batch)),  # type: ignore[arg-type]
            nullcontext,
        )
    }


def _assert_equal(
    loaded: DualEncoder, monkeypatch: pytest.MonkeyPatch, *given: Any, tolerance: float
) -> None:
    found, own = _run(loaded, *given)
    _plainly(loaded, monkeypatch)
    expected, gradients = _run(loaded, *given)
    assert (found - expected).abs().max() < tolerance
    assert own.keys() == gradients.keys()
    assert len(own) > 3
    largest = max(gradient.abs().max() for gradient in gradients.values())
    assert largest > 0.1
    for name, gradient in gradients.items():
        assert (own[name] - gradient).abs().max() < tolerance * max(1, largest), name


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_and_gradients_are_those_of_whole_layers(
    bases: dict[str, Path], family: str, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = _ready(bases[family], STRATEGIES[strategy])
    assert _taken(loaded) == ONCE[family]
    _assert_equal(loaded, monkeypatch, *_inputs(loaded), tolerance=1e-5)


@pytest.mark.parametrize("strategy", ["full", "attention+mlp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_in_double_precision_nothing_is_lost(bases: dict[str, Path], family: str, strategy: str) -> None:
    """What is left out is left out exactly: only the order of sums differs."""
    loaded = _ready(bases[family], STRATEGIES[strategy]).double()
    image, text = _inputs(loaded)
    for part, batch, features in (("image", image, loaded._image), ("text", text, loaded._text)):
        if part not in ONCE[family]:
            continue
        rows, gradients = [], []
        for place in (loaded.pooled_position(part, batch), None):  # type: ignore[arg-type]
            with last_layer.compute_only_at(loaded.tower(part), place):  # type: ignore[arg-type]
                rows.append(features(batch).pooler_output)
            assert rows[-1].dtype == torch.float64
            (rows[-1] * torch.linspace(-1, 1, rows[-1].numel()).reshape(rows[-1].shape)).sum().backward()
            gradients.append({n: w.grad.clone() for n, w in loaded.weights().items() if w.grad is not None})
            loaded.zero_grad(set_to_none=True)
        assert (rows[0] - rows[1]).abs().max() < 1e-12
        assert gradients[0].keys() == gradients[1].keys()
        for name, gradient in gradients[1].items():
            assert (gradients[0][name] - gradient).abs().max() < 1e-10 * max(1, gradient.abs().max()), name


@pytest.mark.parametrize("family", FAMILIES)
def test_as_long_as_the_tower_made_them(bases: dict[str, Path], family: str) -> None:
    loaded = _ready(bases[family]).eval()
    text = loaded.text_tokenizer([*TEXTS, "a " * 200])
    with torch.no_grad():
        raw, plain = (
            loaded.encode_text_unnormalized(text),
            loaded.hf_base.get_text_features(**text).pooler_output,
        )
        assert (raw - plain).abs().max() < 1e-5 * plain.abs().max()
        # To the last bit the vectors that are measured everywhere else.
        assert torch.equal(F.normalize(raw, dim=-1), loaded.encode_text(text))
        assert (raw.norm(dim=-1) - 1).abs().max() > 0.1


@pytest.mark.parametrize("last_layers", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_from_kept_hidden_states(
    bases: dict[str, Path], family: str, last_layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = Lora(rank=2, dropout=0.0, targets="attention+mlp", last_layers=last_layers)
    loaded = _ready(bases[family], strategy)
    image, text = _inputs(loaded)
    assert loaded.first_trainable_layer("image") == loaded.first_trainable_layer("text") == 2 - last_layers
    kept = (
        {"hidden": loaded.frozen_hidden_states("image", image)}
        if "image" in loaded.accepts_hidden_states
        else image
    )
    midway = {**text, "hidden": loaded.frozen_hidden_states("text", text)}
    before = [name for name, _ in loaded.named_modules()]
    _assert_equal(loaded, monkeypatch, kept, midway, tolerance=1e-5)
    assert [name for name, _ in loaded.named_modules()] == before  # nothing is left behind


def test_adapters_of_other_kinds(bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = _ready(bases["clip"])
    wrapped = LoraConfig(r=2, use_dora=True, target_modules=["q_proj", "k_proj", "v_proj", "out_proj", "fc1"])
    loaded.hf_model = get_peft_model(loaded.hf_model, wrapped)
    assert _taken(loaded) == {"image", "text"}
    _assert_equal(loaded, monkeypatch, *_inputs(loaded), tolerance=1e-5)


@pytest.mark.parametrize("family", ["clip", "metaclip_2"])
def test_what_stands_behind_the_end_does_not_reach_it(bases: dict[str, Path], family: str) -> None:
    loaded = _ready(bases[family])
    text = loaded.text_tokenizer(TEXTS)["input_ids"]
    ends = loaded.pooled_position("text", {"input_ids": text})
    behind = torch.arange(text.shape[1]) > ends[:, None]  # type: ignore[operator]
    other = torch.where(behind, (text + 7) % 20 + 5, text)
    assert behind.any()
    assert not torch.equal(other, text)
    expected = loaded.encode_text({"input_ids": text})
    assert torch.equal(loaded.encode_text({"input_ids": other}), expected)
    before = text.clone()
    before[0, 1] += 1  # negative control: a word before the end does
    assert not torch.allclose(loaded.encode_text({"input_ids": before})[0], expected[0], atol=1e-4)


def test_the_first_converted_checkpoints_are_read_at_the_highest_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = _ready(tiny_models.tiny_clip(tmp_path / "base", legacy_eos=True))
    assert _taken(loaded) == {"image", "text"}
    ids = torch.tensor([[7, 2, 9, 4, 9], [2, 3, 1, 0, 0]])
    assert last_layer.end_of_text(ids, None).tolist() == [2, 1]  # the first of the highest
    assert last_layer.end_of_text(ids, 2).tolist() == [1, 0]
    _assert_equal(loaded, monkeypatch, *_inputs(loaded), tolerance=1e-5)


def test_a_mask_that_the_model_makes_is_kept(bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a padding mask, transformers hands the layers one of all tokens by all tokens."""
    loaded = _ready(bases["clip"])
    image, text = _inputs(loaded)
    text["attention_mask"] = torch.ones_like(text["input_ids"])
    text["attention_mask"][:, 1] = 0  # in front of the end, so that it counts
    bare = loaded.encode_text({"input_ids": text["input_ids"]})
    assert not torch.allclose(loaded.encode_text(text), bare, atol=1e-3)
    _assert_equal(loaded, monkeypatch, image, text, tolerance=1e-5)


def test_under_autocast_it_differs_by_rounding(
    bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = _ready(bases["clip"], STRATEGIES["attention+mlp"])
    given = _inputs(loaded)
    exact, _ = _run(loaded, *given)
    with torch.autocast("cpu", torch.bfloat16):
        found, own = _run(loaded, *given)
        _plainly(loaded, monkeypatch)
        expected, gradients = _run(loaded, *given)
    off = (expected - exact).abs().max()  # what rounding does to whole layers
    assert 1e-4 < off < 5e-2
    assert (found - exact).abs().max() < 2 * off
    assert own.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert (own[name] - gradient).norm() <= 0.1 * max(gradient.norm(), torch.tensor(0.1)), name


@pytest.mark.parametrize("micro", [None, 1, 5])
def test_with_gradient_caching(
    bases: dict[str, Path], micro: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = _ready(bases["clip"])
    pixels = torch.randint(
        0, 256, (7, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    texts = [f"a red circle {'and a dog ' * (i % 4)}{i}" for i in range(7)]
    batch = StepBatch({"pixels": pixels}, None, texts, None, torch.arange(7), None)
    results = []
    for _ in range(2):
        terms = components.WeightedObjectives({"contrastive": (1.0, Contrastive())})
        taken = step.compute_gradients(loaded, loaded, batch, terms, micro, 0, Accelerator(cpu=True))
        results.append((taken.loss, {name: w.grad.clone() for name, w in loaded.weights().items()}))
        loaded.zero_grad(set_to_none=True)
        _plainly(loaded, monkeypatch)
    (loss, own), (expected, gradients) = results
    assert loss == pytest.approx(expected, abs=1e-5)
    for name, gradient in gradients.items():
        assert torch.allclose(own[name], gradient, atol=1e-5), name


def test_activation_checkpointing_reaches_the_layer(
    bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = _ready(bases["clip"])
    given = _inputs(loaded)
    expected, gradients = _run(loaded, *given)
    again: list[str] = []
    last = loaded.hf_base.vision_model.encoder.layers[-1]
    run = last.layer_norm2.forward
    monkeypatch.setattr(last.layer_norm2, "forward", lambda rows: again.append("") or run(rows))
    with layer_execution.layer_execution(loaded, TrainConfig(activation_checkpointing=True)):
        found, own = _run(loaded, *given)
    assert len(again) == 2  # forward, and once more in the backward pass
    assert torch.allclose(found, expected, atol=1e-6)
    assert all(torch.allclose(own[name], gradient, atol=1e-5) for name, gradient in gradients.items())


@pytest.mark.filterwarnings("default")  # torch warns of its own parts while it compiles
def test_beside_compiled_layers(bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = _ready(bases["clip"])
    given = _inputs(loaded)
    for part in ("image", "text"):
        for layer in layers.layer_stack(loaded.tower(part))[1]:  # type: ignore[arg-type]
            layer.compile(backend="eager", dynamic=True)
    assert _taken(loaded) == {"image", "text"}
    _assert_equal(loaded, monkeypatch, *given, tolerance=1e-5)


@pytest.mark.parametrize("part", ["image", "text"])
def test_a_sixth_of_the_last_layer_is_left(bases: dict[str, Path], part: str) -> None:
    """Counted by hand: of 24 w² operations a token in four projections and the MLP, 4 w² stay."""
    loaded = _ready(bases["clip"])
    image, text = _inputs(loaded)
    batch, features, encode = {
        "image": (image, loaded._image, loaded.encode_image),
        "text": (text, loaded._text, loaded.encode_text),
    }[part]
    counts = []
    for work in (features, encode):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            work(batch)
        linear = sum(n for kind, n in counter.get_flop_counts()["Global"].items() if "mm" in str(kind))
        counts.append(linear)
    b, t = (5, 17) if part == "image" else tuple(text["input_ids"].shape)
    w, inner = 32, 64
    query_out_mlp = 2 * (2 * w * w + 2 * w * inner)  # a token
    assert counts[0] - counts[1] == b * (t - 1) * query_out_mlp


def _dropout(layer: Any) -> None:
    layer.self_attn.dropout = 0.1


def _hook(layer: Any) -> None:
    layer.register_forward_hook(lambda *_: None)


def _attention_hook(layer: Any) -> None:
    layer.self_attn.register_forward_pre_hook(lambda *_: None)


def _eager(layer: Any) -> None:
    layer.self_attn.config._attn_implementation = "eager"


def _subclass(layer: Any) -> None:
    layer.__class__ = type("MyLayer", (type(layer),), {})


@pytest.mark.parametrize("change", [_dropout, _hook, _attention_hook, _eager, _subclass])
def test_whatever_it_would_not_do_alike_runs_whole(
    bases: dict[str, Path], change: Callable[[Any], None]
) -> None:
    loaded = _ready(bases["clip"])
    assert _taken(loaded) == {"image", "text"}
    change(loaded.hf_base.vision_model.encoder.layers[-1])
    assert _taken(loaded) == {"text"}
    loaded.eval()
    assert _taken(loaded) == ({"image", "text"} if change is _dropout else {"text"})


def test_hidden_dropout_of_a_vit_runs_whole(tmp_path: Path) -> None:
    loaded = _ready(tiny_models.tiny_dual_encoder(tmp_path / "base", dropout=0.1))
    assert _taken(loaded) == set()
    loaded.eval()
    assert _taken(loaded) == {"image"}


def test_a_few_rows_run_whole(bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to three, their last digit would depend on where the weights lie in memory."""
    loaded = _ready(bases["clip"])
    whole: list[str] = []
    attention = loaded.hf_base.text_model.encoder.layers[-1].self_attn
    run = attention.forward
    monkeypatch.setattr(attention, "forward", lambda *a, **k: whole.append("") or run(*a, **k))
    _, text = _inputs(loaded)
    for count, runs in ((3, 1), (4, 1), (1, 2)):
        loaded.encode_text({name: rows[:count] for name, rows in text.items()})
        assert len(whole) == runs


def test_a_fault_inside_leaves_the_tower_as_it_was(bases: dict[str, Path]) -> None:
    loaded = _ready(bases["clip"])
    before = [name for name, _ in loaded.named_modules()]
    with pytest.raises(IndexError):
        loaded.encode_text({"input_ids": torch.full((1, 3), 10**6)})
    assert [name for name, _ in loaded.named_modules()] == before
