"""One step: the cached, the distributed and the plain way give the same loss and gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from domainclip import components
from domainclip.components import WeightedObjectives
from domainclip.data.batching.extras import BatchExtras
from domainclip.data.batching.matches import Matches, MatchKeys
from domainclip.distributed import collectives
from domainclip.models import dual_encoder, loading
from domainclip.models.text_tokenizer import TokenCache
from domainclip.models.token_embeddings import EncoderOutput
from domainclip.objectives.anchor import Anchor
from domainclip.objectives.base import Sizes, Views
from domainclip.objectives.contrastive import Contrastive
from domainclip.objectives.sigmoid import Sigmoid
from domainclip.strategies.full import Full
from domainclip.strategies.locked_image import LockedImage
from domainclip.strategies.lora import Lora
from domainclip.training import microbatches, step
from domainclip.training.batch_loss import BatchLoss
from domainclip.training.memory import Memory
from domainclip.training.views import MomentumRows, StepBatch
from tests.support.matches import related
from tests.support.processes import started
from tests.support.tiny_models import tiny_clip, tiny_siglip

PAIRS, PROSE = 12, 4
WORDS = ["a red circle", "two small squares on the left", "a line", "nothing at all to see in here today"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    clip, siglip = tiny_clip(folder / "clip"), tiny_siglip(folder / "siglip")
    return {"sigmoid": siglip, "other": siglip, **dict.fromkeys(("contrastive", *STRATEGIES), clip)}


# What is computed once, and what is not run twice: all with the contrastive loss, on a CLIP.
STRATEGIES: dict[str, Any] = {
    "locked": LockedImage(),  # run in every step, for nothing is kept
    "layers": Full(last_layers=1),  # from hidden states on
    "adapter": Lora(rank=2, last_layers=1, towers="text"),
    "dora": Lora(rank=2, dora=True, rslora=True),
}


def _terms(objective: str) -> components.WeightedObjectives:
    loss = Sigmoid() if objective == "sigmoid" else Contrastive()
    return components.WeightedObjectives({objective: (1.0, loss), "anchor": (3.0, Anchor())})


def _model(base: Path, strategy: Any = None, train: bool = True) -> dual_encoder.DualEncoder:
    torch.manual_seed(0)
    loaded = loading.load_model(base)
    (strategy or Full()).learning_rates(loaded)
    with torch.no_grad():  # an adapter starts as nothing: give it something to say
        for name, weight in loaded.weights().items():
            if ".lora_B." in name:
                weight.normal_(0, 0.05)
    return loaded.train(train)


def _batch(
    loaded: dual_encoder.DualEncoder, rows: slice = slice(None), prose: slice = slice(None)
) -> StepBatch:
    """Different pixels and words in every row; 2 and 7 are of one group, and text 3 is right for image 9."""
    draw = torch.Generator().manual_seed(3)
    height, width = loaded.image_size
    pixels = torch.randint(0, 256, (PAIRS, height, width, 3), dtype=torch.uint8, generator=draw)
    texts = [f"{WORDS[i % 4]} {i if i > 2 else 0}" for i in range(PAIRS)]
    texts[11], texts[5] = texts[0], texts[4]  # equal captions, in one process and in two
    general = [f"the word {i}" for i in range(PROSE)]
    anchors = torch.nn.functional.normalize(torch.randn(PROSE, loaded.width, generator=draw), dim=-1)
    group = [i if i != 7 else 2 for i in range(PAIRS)]
    keys = related(group, [[100 + i, 103] if i == 9 else [100 + i] for i in range(PAIRS)]).images
    return StepBatch(
        {"pixels": pixels[rows]}, None, texts[rows] + general[prose], None, keys[rows], anchors[prose]
    )


def _gradients(loaded: dual_encoder.DualEncoder) -> dict[str, Tensor]:
    found = {n: w.grad.clone() for n, w in loaded.weights().items() if w.grad is not None}
    loaded.zero_grad(set_to_none=True)
    return found


def _assert_close(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    assert len(one) > 3
    largest = max(grad.abs().max().item() for grad in one.values())
    for name, grad in one.items():
        assert (grad - other[name]).abs().max().item() <= tolerance * max(1.0, largest), name


@pytest.fixture
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


@pytest.mark.parametrize("objective", ["contrastive", "sigmoid"])
@pytest.mark.parametrize("micro", [1, 5, PAIRS, 100])
def test_caching_gives_the_gradients_of_one_batch(
    bases: dict[str, Path], accelerator: Accelerator, objective: str, micro: int
) -> None:
    """Fault 14."""
    loaded = _model(bases[objective])
    batch, terms = _batch(loaded), _terms(objective)
    plain = step.compute_gradients(loaded, loaded, batch, terms, None, 0, accelerator)
    expected = _gradients(loaded)
    cached = step.compute_gradients(loaded, loaded, batch, terms, micro, 0, accelerator)
    _assert_close(_gradients(loaded), expected)
    assert cached.loss == pytest.approx(plain.loss, abs=1e-5)
    assert {"scale/logit_scale"} <= expected.keys()
    assert ("bias/logit_bias" in expected) == (objective == "sigmoid")


@pytest.mark.parametrize("micro", [1, 5, PAIRS])
def test_caching_with_an_adapter_and_dropout(
    bases: dict[str, Path], accelerator: Accelerator, micro: int
) -> None:
    """Fault 14. Dropout draws the same in both encodings: the gradients are those of one graph over all."""
    loaded = _model(bases["contrastive"], Lora(rank=2, dropout=0.3))
    batch, terms = _batch(loaded), _terms("contrastive")
    images, texts = [], []
    split = microbatches.split_rows(
        batch.image, batch.texts, TokenCache(loaded.text_tokenizer), PAIRS, micro, batch.keys.group.device
    )
    for number, chunk in enumerate(split.inputs):
        step._seed(11, number)
        image, text, scale, bias = loaded(**chunk)
        images.append(image)
        texts.append(text)
    out = EncoderOutput(torch.cat(images), torch.cat(texts), scale, bias)
    memory = Memory.initial(terms, Sizes(loaded.width), 0, {}, torch.device("cpu"))
    loss, found = BatchLoss(batch, split.row_of_text, terms, memory, MomentumRows())(out)
    loss.backward()
    expected = _gradients(loaded)
    assert all(".lora_" in name or name == "scale/logit_scale" for name in expected)
    cached = step.compute_gradients(loaded, loaded, batch, terms, micro, 11, accelerator)
    _assert_close(_gradients(loaded), expected, 1e-6)
    assert cached.loss == pytest.approx(found.loss, abs=1e-6)
    # Negative control: other draws give other gradients, so dropout was really on.
    step.compute_gradients(loaded, loaded, batch, terms, micro, 12, accelerator)
    other = _gradients(loaded)
    assert any(not torch.allclose(other[name], expected[name], atol=1e-4) for name in expected)


class _Hidden:
    """Texts from the hidden states below the last layer on."""

    def __init__(self, loaded: dual_encoder.DualEncoder) -> None:
        self.loaded, self.tokens = loaded, TokenCache(loaded.text_tokenizer)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return self.tokens.lengths(texts)

    def batch(self, texts: Sequence[str]) -> dict[str, Tensor]:
        batch = self.tokens.batch(texts)
        return {**batch, "hidden": self.loaded.frozen_hidden_states("text", batch)}


def _midway(loaded: dual_encoder.DualEncoder, batch: StepBatch) -> StepBatch:
    return replace(
        batch, image={"hidden": loaded.frozen_hidden_states("image", batch.image)}, captions=_Hidden(loaded)
    )


def _counted(loaded: dual_encoder.DualEncoder, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many rows each tower encodes, and how many are put on a graph."""
    rows = dict.fromkeys(("image", "text", "image graph", "text graph"), 0)
    for side in ("image", "text"):
        encode = getattr(loaded, f"encode_{side}")

        def note(batch: dict[str, Tensor], side: str = side, encode: Any = encode) -> Tensor:
            found = encode(batch)
            rows[side] += len(found)
            rows[f"{side} graph"] += len(found) * found.requires_grad
            return found

        monkeypatch.setattr(loaded, f"encode_{side}", note)
    return rows


@pytest.mark.parametrize("micro", [1, 4, 5, PAIRS - 1])
@pytest.mark.parametrize("name", STRATEGIES)
def test_what_is_not_run_twice_gives_the_gradients_of_one_batch(
    bases: dict[str, Path], accelerator: Accelerator, name: str, micro: int
) -> None:
    loaded = _model(bases[name], STRATEGIES[name])
    batch, terms = _batch(loaded), _terms(name)
    plain = step.compute_gradients(loaded, loaded, batch, terms, None, 0, accelerator)
    expected = _gradients(loaded)
    ways = [batch, *([_midway(loaded, batch)] if name == "layers" else [])]
    for one in ways:
        for held in (None, micro):
            taken = step.compute_gradients(loaded, loaded, one, terms, held, 0, accelerator)
            _assert_close(_gradients(loaded), expected)
            assert taken.loss == pytest.approx(plain.loss, abs=1e-5)


def test_each_row_is_encoded_no_more_often_than_it_must(
    bases: dict[str, Path], accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    distinct = PAIRS + PROSE - 2
    for strategy, images, texts in (
        (Full(), (2 * PAIRS - 4, PAIRS), (2 * distinct - 4, distinct)),  # all but the first chunk twice
        (LockedImage(), (PAIRS, 0), (2 * distinct - 4, distinct)),
        (Lora(rank=2, towers="image"), (2 * PAIRS - 4, PAIRS), (distinct, 0)),
    ):
        loaded = _model(bases["contrastive"], strategy)
        batch = _batch(loaded)
        assert len(set(batch.texts)) == distinct
        counts = _counted(loaded, monkeypatch)
        step.compute_gradients(loaded, loaded, batch, _terms("contrastive"), 4, 0, accelerator)
        first = distinct // 3  # the texts of the first of three chunks
        again = 2 * distinct - first if texts[1] else distinct
        assert (counts["image"], counts["image graph"]) == images
        assert (counts["text"], counts["text graph"]) == (again, texts[1])


def test_only_the_scale_learns(bases: dict[str, Path], accelerator: Accelerator) -> None:
    loaded = _model(bases["contrastive"])
    loaded.set_trainable([("scale/.*", 1.0), (".*", 0.0)])
    batch, terms = _batch(loaded), _terms("contrastive")
    step.compute_gradients(loaded, loaded, batch, terms, None, 0, accelerator)
    expected = _gradients(loaded)
    step.compute_gradients(loaded, loaded, batch, terms, 5, 0, accelerator)
    found = _gradients(loaded)
    assert found.keys() == expected.keys() == {"scale/logit_scale"}
    assert torch.allclose(found["scale/logit_scale"], expected["scale/logit_scale"], atol=1e-6)


def test_equal_captions_are_encoded_once_and_their_gradients_add_up(
    bases: dict[str, Path], accelerator: Accelerator
) -> None:
    loaded = _model(bases["contrastive"])
    batch = replace(_batch(loaded, prose=slice(0, 0)), base_anchor_text=None)
    batch = replace(batch, texts=["a red circle", "a small dog"] * (PAIRS // 2))
    terms = components.WeightedObjectives({"contrastive": (1.0, Contrastive())})
    image, text, scale, _ = loaded(batch.image, loaded.text_tokenizer(batch.texts))  # each by itself
    Contrastive()(Views(image, text, scale, matches=Matches.within(batch.keys))).backward()
    expected = _gradients(loaded)
    for micro in (None, 5):
        step.compute_gradients(loaded, loaded, batch, terms, micro, 0, accelerator)
        _assert_close(_gradients(loaded), expected)


def test_smaller_batches_added_up_are_not_the_same(bases: dict[str, Path], accelerator: Accelerator) -> None:
    """Fault 14. Negative control: gradient accumulation does not enlarge a contrastive batch."""
    loaded = _model(bases["contrastive"])
    terms = components.WeightedObjectives({"contrastive": (1.0, Contrastive())})
    bare = replace(_batch(loaded, prose=slice(0, 0)), base_anchor_text=None)
    step.compute_gradients(loaded, loaded, bare, terms, None, 0, accelerator)
    expected = _gradients(loaded)
    for half in (slice(0, 6), slice(6, 12)):
        part = replace(_batch(loaded, half, slice(0, 0)), base_anchor_text=None)
        step.compute_gradients(loaded, loaded, part, terms, None, 0, accelerator)
    added = {name: grad / 2 for name, grad in _gradients(loaded).items()}
    worst = max((added[name] - expected[name]).abs().max().item() for name in expected)
    assert worst > 1e-2


def test_kept_embeddings_give_the_same_step(bases: dict[str, Path], accelerator: Accelerator) -> None:
    loaded = _model(bases["contrastive"], LockedImage())
    batch, terms = _batch(loaded), _terms("contrastive")
    plain = step.compute_gradients(loaded, loaded, batch, terms, None, 0, accelerator)
    expected = _gradients(loaded)
    assert all(name.startswith(("text/", "scale/")) for name in expected)
    with torch.no_grad():
        rows = loaded.encode_image(batch.image)
    kept = replace(batch, image=None, image_embeddings=rows)
    for micro in (None, 5):
        taken = step.compute_gradients(loaded, loaded, kept, terms, micro, 0, accelerator)
        _assert_close(_gradients(loaded), expected)
        assert taken.loss == pytest.approx(plain.loss, abs=1e-6)


def test_a_row_that_is_not_finite_is_named(bases: dict[str, Path], accelerator: Accelerator) -> None:
    loaded = _model(bases["contrastive"])
    batch = _batch(loaded, prose=slice(0, 0))
    broken = loaded.encode_image(batch.image).detach()
    broken[4, 0] = torch.nan
    batch = replace(batch, image=None, image_embeddings=broken, base_anchor_text=None)
    loaded.set_trainable([("image/.*", 0.0), (".*", 1.0)])
    taken = step.compute_gradients(
        loaded, loaded, batch, WeightedObjectives({"contrastive": (1.0, Contrastive())}), None, 0, accelerator
    )
    assert taken.non_finite_rows == [4]
    assert taken.loss != taken.loss


def test_the_share_of_pairs_without_a_negative(bases: dict[str, Path], accelerator: Accelerator) -> None:
    loaded = _model(bases["sigmoid"])
    batch = _batch(loaded, prose=slice(0, 0))
    batch = replace(batch, base_anchor_text=None)
    one_group = replace(batch, keys=MatchKeys.of_groups(torch.zeros(PAIRS, dtype=torch.int64)))
    shares = []
    for name, loss in (("contrastive", Contrastive()), ("sigmoid", Sigmoid()), ("anchor", Anchor())):
        for of_batch in (batch, one_group):
            for micro in (None, 5) if name != "anchor" else ():
                terms = WeightedObjectives({name: (1.0, loss)})
                taken = step.compute_gradients(loaded, loaded, of_batch, terms, micro, 0, accelerator)
                shares.append(taken.figures.without_negative)
                if of_batch is one_group and name == "contrastive":
                    assert taken.loss == 0
    assert shares == [0.0, 0.0, 1.0, 1.0] * 2
    # Where labels decide, pairs of one label match: pairs 0 to 3 have both labels, the others one.
    labels = torch.arange(2 * PAIRS).reshape(PAIRS, 2) % 2 == 0
    terms = WeightedObjectives({"contrastive": (1.0, Contrastive(targets="labels"))})
    for rows, share in ((labels, 1.0), (labels | (torch.arange(PAIRS) < 4)[:, None], 0.0)):
        labelled = replace(batch, extras=BatchExtras(labels=rows))
        taken = step.compute_gradients(loaded, loaded, labelled, terms, None, 0, accelerator)
        assert taken.figures.without_negative == share


# --- two real processes with different data: started once, for all cases -------------------------------

CASES = [(objective, micro, False) for objective in ("contrastive", "sigmoid") for micro in (None, 4)]
# A sigmoid base under the contrastive loss: nothing looks at its bias, which learns all the same.
CASES += [("other", micro, False) for micro in (None, 4)]
CASES += [(name, micro, False) for name in STRATEGIES for micro in (None, 4)]
CONTROL = ("contrastive", None, True)


@contextmanager
def _detached() -> Iterator[None]:
    """Gathering without its gradient."""
    whole, rank = collectives.gather, collectives.rank()

    def gather(rows: Tensor) -> Tensor:
        parts = [*whole(rows.detach()).chunk(2)]
        parts[rank] = rows
        return torch.cat(parts)

    with patch.object(collectives, "gather", gather):
        yield


def _half(bases: dict[str, Path]) -> dict[str, Any]:
    """What one of two processes finds by case: its half of the batch, through the data-parallel wrapper."""
    accelerator, rank = Accelerator(cpu=True), collectives.rank()
    half = slice(rank * PAIRS // 2, (rank + 1) * PAIRS // 2)
    general = slice(rank * PROSE // 2, (rank + 1) * PROSE // 2)
    found: dict[str, Any] = {}
    for objective, micro, detach in [*CASES, CONTROL]:
        loaded = _model(bases[objective], STRATEGIES.get(objective))
        batch = _batch(loaded, half, general)
        batch = _midway(loaded, batch) if objective == "layers" else batch
        model = accelerator.prepare(loaded)
        with _detached() if detach else nullcontext():
            for _ in range(2):  # the second pass would fail if the first had missed a weight
                loaded.zero_grad(set_to_none=True)
                taken = step.compute_gradients(model, loaded, batch, _terms(objective), micro, 0, accelerator)
        found[f"{objective}/{micro}/{detach}"] = (taken.loss, _gradients(loaded))
    # The pairs of this process are one group: the negatives are on the other one.
    loaded = _model(bases["sigmoid"])
    batch = replace(_batch(loaded, half, slice(0, 0)), base_anchor_text=None)
    batch = replace(batch, keys=MatchKeys.of_groups(torch.full((PAIRS // 2,), rank)))
    one_group = replace(batch, keys=MatchKeys.of_groups(torch.zeros(PAIRS // 2, dtype=torch.int64)))
    for name, loss in (("contrastive", Contrastive()), ("sigmoid", Sigmoid())):
        model, terms = accelerator.prepare(loaded), WeightedObjectives({name: (1.0, loss)})
        for of_batch in (batch, one_group):
            loaded.zero_grad(set_to_none=True)
            taken = step.compute_gradients(model, loaded, of_batch, terms, None, 0, accelerator)
            found.setdefault(f"{name}/negatives", []).append(taken.figures.without_negative)
    return found


def test_negatives_on_another_process_count(two: list[Any]) -> None:
    for process in two:
        assert process["contrastive/negatives"] == process["sigmoid/negatives"] == [0.0, 1.0]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, bases: dict[str, Path]) -> list[Any]:
    """What each of the two processes found, by case."""
    return started(2, tmp_path_factory.mktemp("two"), _half, bases)


@pytest.mark.parametrize(("objective", "micro", "detach"), CASES)
def test_two_processes_give_the_one_process_gradients(
    two: list[Any],
    bases: dict[str, Path],
    accelerator: Accelerator,
    objective: str,
    micro: int | None,
    detach: bool,
) -> None:
    """Fault 11."""
    loaded = _model(bases[objective], STRATEGIES.get(objective))
    alone = step.compute_gradients(loaded, loaded, _batch(loaded), _terms(objective), None, 0, accelerator)
    expected = _gradients(loaded)
    for process in two:
        loss, found = process[f"{objective}/{micro}/{detach}"]
        assert loss == pytest.approx(alone.loss, abs=1e-5)
        _assert_close(found, expected)


def test_gathering_without_gradient_would_miss_the_others_rows(
    two: list[Any], bases: dict[str, Path], accelerator: Accelerator
) -> None:
    """Fault 12. Control: the loss is right, the towers' gradients are not; only the scale's is."""
    loaded = _model(bases["contrastive"])
    alone = step.compute_gradients(
        loaded, loaded, _batch(loaded), _terms("contrastive"), None, 0, accelerator
    )
    expected = _gradients(loaded)
    loss, found = two[0]["contrastive/None/True"]
    assert loss == pytest.approx(alone.loss, abs=1e-5)
    name = "image/visual_projection.weight"
    assert not torch.allclose(found[name], expected[name], atol=1e-3)
    assert not torch.allclose(found[name] * 2, expected[name], atol=1e-3)
    assert torch.allclose(found["scale/logit_scale"], expected["scale/logit_scale"], atol=1e-5)


# --- what one process decides for all ------------------------------------------------------------------


def _told() -> list[object]:
    """The second process would fail, and is never asked; the first one's error reaches both."""
    rank = collectives.rank()
    found: list[object] = [
        collectives.on_first_process(lambda: f"from {rank}"),
        collectives.max_over_processes(rank * 5),
    ]
    try:
        collectives.on_first_process(lambda: 1 // 0)
    except ZeroDivisionError as error:
        found.append(str(error))
    return found


def test_the_first_process_speaks_for_all(tmp_path: Path) -> None:
    assert started(2, tmp_path, _told) == [["from 0", 5, "integer division or modulo by zero"]] * 2
    assert collectives.on_first_process(lambda: 7) == 7
