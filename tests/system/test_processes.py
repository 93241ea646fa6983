"""Many processes give what one gives: the loss and every gradient of a step, at two and at four of them.

All cases run in one start of each number of processes. In fp64 what the code says in fp32 is said in fp64
too, so that nothing but the order of sums can differ.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from math import inf
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from domainclip import components
from domainclip.config.training import TrainConfig
from domainclip.data.batching.loader import batches
from domainclip.data.batching.matches import Matches, MatchKeys
from domainclip.data.batching.order import Position, batch_positions
from domainclip.distributed import collectives
from domainclip.errors import RecipeError
from domainclip.models import dual_encoder, loading
from domainclip.objectives.anchor import Anchor
from domainclip.objectives.contrastive import Contrastive
from domainclip.objectives.losses import blockwise, ring
from domainclip.objectives.sigmoid import Sigmoid
from domainclip.pipelines.open_run import make_accelerator
from domainclip.strategies.full import Full
from domainclip.strategies.locked_image import LockedImage
from domainclip.strategies.lora import Lora
from domainclip.training import fsdp, step, views
from tests.support.matches import related
from tests.support.processes import started
from tests.support.tiny_models import tiny_clip, tiny_siglip

PAIRS, PROSE = 28, 8  # 14 or 7 pairs a process: micro-batches of 3 divide neither
TOLERANCE = {"fp64": 1e-12, "fp32": 1e-5}
STRATEGIES: dict[str, Any] = {
    "full": Full(),
    "lora": Lora(rank=2, targets="attention+mlp"),
    "locked_image": LockedImage(),
    "last_layer": Full(last_layers=1),
}


@dataclass(frozen=True)
class Case:
    """One step, run by any number of processes."""

    objective: str = "contrastive"
    strategy: str = "full"
    micro: int | None = None
    prose: bool = False
    precision: str = "fp64"
    shard: bool = False  # each process holds a part of the weights
    fault: str = ""  # what is done wrong, as a control


CASES = [
    Case(objective, strategy, micro, prose)
    for objective in ("contrastive", "sigmoid")
    for strategy in ("full", "lora", "locked_image")
    for micro, prose in ((None, False), (3, True))
]
CASES += [replace(case, precision="fp32") for case in CASES if case.micro and case.strategy == "full"]
CASES += [Case("sigmoid", micro=3), Case(micro=3)]  # without prose, the sigmoid's texts go round
# What an objective leaves alone, a scale that learns and a bias that nothing looks at, is exchanged too.
CASES += [Case("contrastive on siglip", "full", micro) for micro in (None, 3)]
CASES += [
    Case(objective, strategy, micro=3, prose=prose, precision=precision, shard=True)
    for objective, strategy, prose, precision in (
        ("contrastive", "full", True, "fp64"),
        ("sigmoid", "lora", False, "fp64"),
        ("sigmoid", "locked_image", True, "fp32"),
    )
]
FAULTS = [
    Case(objective, prose=True, fault=fault)
    for objective in ("contrastive", "sigmoid")
    for fault in ("detached", "offset")
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {"clip": tiny_clip(folder / "clip"), "siglip": tiny_siglip(folder / "siglip", bias=-2.0)}


_read = cache(loading.load_model)


def _model(case: Case, bases: dict[str, Path]) -> dual_encoder.DualEncoder:
    torch.manual_seed(0)
    # Read once a process: a copy costs a hundredth of it.
    loaded = copy.deepcopy(_read(bases["clip" if case.objective == "contrastive" else "siglip"]))
    STRATEGIES[case.strategy].learning_rates(loaded)
    with torch.no_grad():  # an adapter starts as nothing: give it something to say
        for name, weight in loaded.weights().items():
            if ".lora_B." in name:
                weight.normal_(0, 0.05)
    return loaded.double() if case.precision == "fp64" else loaded


def _batch(case: Case, loaded: dual_encoder.DualEncoder, rank: int, world: int) -> views.StepBatch:
    """This process's share of a batch with ragged texts, equal captions and pairs of one group."""
    draw = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (PAIRS, *loaded.image_size, 3), dtype=torch.uint8, generator=draw)
    texts = [f"{'a small red circle ' * (1 + i % 5)}{i}" for i in range(PAIRS)]
    texts[9] = texts[2]  # in one process, or in two
    texts[27] = texts[26] = texts[0]  # the last process and the first
    # Group 5 is of several processes; equal captions are, and text 4 is right for an image of the last one.
    group = [5 if i in (5, 6, 20) else i for i in range(PAIRS)]
    caption = [2 if i == 9 else 0 if i >= 26 else i for i in range(PAIRS)]
    keys = related(
        group, [[number, 4, 11] if i == 25 else [number] for i, number in enumerate(caption)]
    ).images
    anchors = torch.nn.functional.normalize(torch.randn(PROSE, loaded.width, generator=draw), dim=-1)
    rows = slice(PAIRS * rank // world, PAIRS * (rank + 1) // world)
    said = slice(PROSE * rank // world, PROSE * (rank + 1) // world)
    general = [f"the word {i}" for i in range(PROSE)][said] if case.prose else []
    anchors = anchors.to(torch.float64 if case.precision == "fp64" else torch.float32)
    return views.StepBatch(
        {"pixels": pixels[rows]},
        None,
        texts[rows] + general,
        None,
        keys[rows],
        anchors[said] if case.prose else None,
    )


def _terms(case: Case) -> components.WeightedObjectives:
    loss = Sigmoid() if case.objective == "sigmoid" else Contrastive()
    anchor = {"anchor": (3.0, Anchor())} if case.prose else {}
    return components.WeightedObjectives({"loss": (1.0, loss), **anchor})


def take(case: Case, bases: dict[str, Path], accelerator: Accelerator) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients; without micro-batches of a second step, which fails if the first missed a weight."""
    rank, world = collectives.rank(), collectives.process_count()
    with _exactly(case), _wrong(case.fault, rank, world):
        loaded = _model(case, bases)
        batch = _batch(case, loaded, rank, world)
        if case.shard:
            loaded = fsdp.shard(loaded, accelerator.device)
        model = loaded if fsdp.is_sharded(loaded) else accelerator.prepare(loaded)
        for _ in range(2 if case.micro is None else 1):
            loaded.zero_grad(set_to_none=True)
            taken = step.compute_gradients(model, loaded, batch, _terms(case), case.micro, 0, accelerator)
            fsdp.clip_gradients(loaded, None, inf, accelerator)
    found = {name: w.grad for name, w in loaded.weights().items() if w.grad is not None}
    return taken.loss, {name: fsdp.full_tensor(grad) for name, grad in found.items()}


def _exactly(case: Case) -> Any:
    """In fp64, what would be rounded to fp32 is not."""
    return patch.object(Tensor, "float", Tensor.double) if case.precision == "fp64" else nullcontext()


@contextmanager
def _wrong(fault: str, rank: int, world: int) -> Iterator[None]:
    """Gathering that loses its gradient; gradients that go to another process."""
    whole = collectives.gather

    def detached(rows: Tensor) -> Tensor:
        parts = [*whole(rows.detach()).chunk(world)]
        parts[rank] = rows
        return torch.cat(parts)

    if fault == "detached":
        with patch.object(collectives, "gather", detached):
            yield
    elif fault == "offset":
        honest = collectives._reduce_scatter
        of_another = lambda own, gradient: honest(own, gradient.roll(len(own), 0))  # noqa: E731
        with patch.object(collectives, "_reduce_scatter", of_another):
            yield
    else:
        yield


# --- the ring, by itself -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ring:
    """The sigmoid loss of embeddings that are given, each process with its own share of them."""

    grouped: bool = False
    biased: bool = True
    precision: str = "fp64"
    fault: str = ""

    def given(self) -> dict[str, Tensor]:
        """All pairs, without gradient."""
        draw = torch.Generator().manual_seed(5)
        dtype = torch.float64 if self.precision == "fp64" else torch.float32
        image, text = (torch.randn(PAIRS, 6, dtype=dtype, generator=draw) for _ in range(2))
        image, text = (torch.nn.functional.normalize(one, dim=-1) for one in (image, text))
        found = {"image": image, "text": text, "scale": torch.tensor(7.0, dtype=dtype)}
        return found | ({"bias": torch.tensor(-3.0, dtype=dtype)} if self.biased else {})

    def keys(self) -> MatchKeys | None:
        """Groups of one process and of several; texts that are right for images of other processes."""
        group = [1 if i % 3 == 1 else 6 if i in (6, 7) else i for i in range(PAIRS)]
        pools = [[100 + i, 100 + (i + 9) % PAIRS] for i in range(PAIRS)]
        return related(group, pools).images if self.grouped else None


RINGS = [Ring(grouped, biased) for grouped in (True, False) for biased in (True, False)]
RINGS += [Ring(True, True, "fp32"), Ring(True, fault="left behind")]


def _around(case: Ring) -> tuple[Tensor, dict[str, Tensor], int]:
    """Loss and gradients of the whole batch, and how many blocks of others' texts stood at once."""
    rank, world = collectives.rank(), collectives.process_count()
    rows = slice(PAIRS * rank // world, PAIRS * (rank + 1) // world)
    own = {name: one[rows] if one.ndim else one for name, one in case.given().items()}
    leaves = {name: one.clone().requires_grad_() for name, one in own.items()}
    keys = case.keys()
    alive: list[weakref.ref[Tensor]] = []
    most, honest = 0, collectives.ring_exchange

    def watched(tensors: Sequence[Tensor]) -> Any:
        nonlocal most
        if len(tensors) == 1:  # gradients; with texts their keys go too
            return (lambda: list(tensors)) if case.fault else honest(tensors)
        arrived = honest(tensors)
        most = max(most, sum(ref() is not None for ref in alive) + 1)  # and the one that is under way

        def arrive() -> list[Tensor]:
            came = arrived()
            alive.append(weakref.ref(came[0]))
            return came

        return arrive

    with patch.object(collectives, "ring_exchange", watched), patch.object(blockwise, "MAX_LOGITS", 3 * 7):
        loss = ring.ring_mean(
            leaves["image"],
            leaves["text"],
            leaves["scale"],
            leaves.get("bias"),
            None if keys is None else Matches.within(keys[rows]),
        )
        found = torch.autograd.grad(loss, list(leaves.values()))
    # As the step does: sums where processes share rows, the mean over the processes everywhere.
    gradients = {
        name: collectives.mean(grad)
        if grad.ndim == 0
        else torch.cat(collectives.gather_objects(grad / world))
        for name, grad in zip(leaves, found, strict=True)
    }
    return collectives.mean(loss.detach()), gradients, most


# --- the processes -------------------------------------------------------------------------------------


def _cases(world: int) -> list[Case]:
    """Of shared weights, which are slow on few cores, one case is enough for four processes."""
    first = next(case for case in CASES if case.shard)
    return [case for case in [*CASES, *FAULTS] if not case.shard or world < 4 or case == first]


def _work(bases: dict[str, Path]) -> dict[str, Any]:
    accelerator = make_accelerator(TrainConfig())
    return {
        "in buffers": _gradients_in_buffers(bases, accelerator),
        "steps": {case: take(case, bases, accelerator) for case in _cases(collectives.process_count())},
        "rings": {case: _around(case) for case in RINGS},
        "refused": _refused(),
    }


def _gradients_in_buffers(bases: dict[str, Path], accelerator: Accelerator) -> tuple[int, int]:
    """Weights that have a gradient, and those whose gradient is a part of a larger buffer."""
    case = Case(precision="fp32")
    loaded = _model(case, bases)
    batch = _batch(case, loaded, collectives.rank(), collectives.process_count())
    step.compute_gradients(accelerator.prepare(loaded), loaded, batch, _terms(case), None, 0, accelerator)
    grads = [weight.grad for weight in loaded.parameters() if weight.grad is not None]
    return len(grads), sum(grad.untyped_storage().nbytes() > grad.nbytes for grad in grads)


class _Numbers(list[int]):
    """Pairs, as far as they are asked for before one of them is looked at."""

    def positions(self, step: int, batch_size: int) -> list[Position]:
        return batch_positions(step, batch_size, len(self), 0)


def _refused() -> str:
    """What is said of a batch that the processes cannot share equally."""
    try:
        next(batches(_Numbers(range(50)), 0, 1, 27, workers=0))  # type: ignore[arg-type]
    except RecipeError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module", params=[2, 4])
def many(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, bases: dict[str, Path]
) -> list[dict[str, Any]]:
    """What each of two, then of four processes found."""
    return started(request.param, tmp_path_factory.mktemp("many"), _work, bases)


@pytest.fixture(scope="module")
def alone(bases: dict[str, Path]) -> dict[Case, tuple[float, dict[str, Tensor]]]:
    """What one process finds for the whole batch, without micro-batches."""
    accelerator = Accelerator(cpu=True)
    asked = {replace(case, micro=None, shard=False, fault="") for case in [*CASES, *FAULTS]}
    return {case: take(case, bases, accelerator) for case in asked}


def _difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference of a weight's gradient, as a share of its length.

    What is zero but for rounding, as the gradient of a key's bias, is compared with the longest instead.
    """
    assert found.keys() == expected.keys()
    longest = max(grad.norm().item() for grad in expected.values())
    return max(
        (found[name] - grad).norm().item() / max(grad.norm().item(), 1e-3 * longest)
        for name, grad in expected.items()
    )


def test_gradients_lie_in_the_buffers_that_are_exchanged(many: Any) -> None:
    for process in many:
        weights, in_buffers = process["in buffers"]
        assert weights == in_buffers > 8


@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss_and_gradients_are_those_of_one_process(many: Any, alone: Any, case: Case) -> None:
    if case not in _cases(len(many)):
        pytest.skip("two processes show it")
    loss, gradients = alone[replace(case, micro=None, shard=False)]
    learning = {"full": 60, "lora": 49, "locked_image": 30}[case.strategy]
    assert len(gradients) >= learning  # nothing is compared with nothing
    assert {"scale/logit_scale"} <= gradients.keys()
    for process in many:
        found, own = process["steps"][case]
        assert found == pytest.approx(loss, rel=TOLERANCE[case.precision])
        assert _difference(own, gradients) <= TOLERANCE[case.precision]


@pytest.mark.parametrize("case", FAULTS, ids=str)
def test_what_is_wrong_shows(many: Any, alone: Any, case: Case) -> None:
    """Negative controls, which a loss alone would not show."""
    loss, gradients = alone[replace(case, fault="")]
    for process in many:
        found, own = process["steps"][case]
        assert _difference(own, gradients) > 1e-2
        assert found == pytest.approx(loss, rel=1e-12)


def test_a_batch_that_cannot_be_shared_is_refused(many: Any) -> None:
    world = len(many)
    said = f"train.batch_size: 27 cannot be shared equally by {world} processes: take a multiple of {world}"
    assert {process["refused"] for process in many} == {said}


@pytest.mark.parametrize("case", [case for case in RINGS if not case.fault], ids=str)
def test_texts_that_go_round_give_what_gathered_ones_give(many: Any, case: Ring) -> None:
    leaves = {name: one.requires_grad_() for name, one in case.given().items()}
    image, text, scale = (leaves[name] for name in ("image", "text", "scale"))
    keys = case.keys()
    mask = None if keys is None else Matches.within(keys).right_texts
    loss = blockwise.mean_over_rows(blockwise.sigmoid_pairs, image, text, scale, leaves.get("bias"), mask)
    wanted = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    alone, gradients, _ = _around(case)
    results = [(alone, gradients, 0), *(process["rings"][case] for process in many)]
    for found, own, most in results:
        assert found.item() == pytest.approx(loss.item(), rel=TOLERANCE[case.precision])
        assert _difference(own, wanted) <= TOLERANCE[case.precision]
        assert most <= 2


def test_gradients_that_stay_behind_show(many: Any) -> None:
    """Negative control: the loss is right, and so is the images' gradient; the texts' is not."""
    case = Ring(True, fault="left behind")
    loss, wanted, _ = _around(replace(case, fault=""))
    for process in many:
        found, own, _ = process["rings"][case]
        assert found.item() == pytest.approx(loss.item(), rel=1e-12)
        assert torch.allclose(own["image"], wanted["image"], atol=1e-12)
        assert not torch.allclose(own["text"], wanted["text"], atol=1e-2)
