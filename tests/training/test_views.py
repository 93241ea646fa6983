"""What objectives ask for beside the pairs arrives whole: in one pass, in micro-batches, from two processes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from domainclip import components
from domainclip.data.batching.extras import BatchExtras
from domainclip.data.batching.matches import MatchKeys
from domainclip.distributed import collectives
from domainclip.models import dual_encoder, loading
from domainclip.objectives.base import Objective, Teacher, Views
from domainclip.training import step
from domainclip.training.views import StepBatch
from tests.support.processes import started
from tests.support.tiny_models import tiny_clip

PAIRS = 8
WORDS = ["a red circle", "two small squares on the left", "a line", "nothing at all to see in here today"]


@dataclass(frozen=True, kw_only=True)
class Curious(Objective):
    """Looks at everything there is, in its own rows, and at all others' through their sums."""

    citation: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset(
        "image_2 image_tokens text_tokens labels teachers extra_text pair_value base_image".split()  # noqa: SIM905
    )
    factor: float = 1.0

    def __call__(self, views: Views) -> Tensor:
        own = views.local_slice
        said = (views.extra_text * views.extra_text_mask[..., None]).sum(1)  # type: ignore[operator, index]
        words = (views.text_tokens * views.text_mask[..., None]).sum(1)  # type: ignore[operator, index]
        patches = views.image_tokens.square().cumsum(1).mean(1)  # type: ignore[union-attr]
        mine = views.image_2 + said + words + patches + views.base_image  # type: ignore[operator]
        weight = views.pair_value.nan_to_num(0.5) * (1 + views.labels.float().sum(1))  # type: ignore[union-attr]
        logits = mine[own] @ mine.T * views.scale
        (teacher,) = views.teachers
        target = (teacher.image[own] @ teacher.text.T * teacher.scale).softmax(-1)
        return self.factor * (weight[own] * -(target * logits.log_softmax(-1)).sum(-1)).mean()


TERMS = components.WeightedObjectives({"one": (1.0, Curious()), "other": (0.5, Curious(factor=2.0))})


def _batch(loaded: dual_encoder.DualEncoder, rows: slice = slice(None)) -> StepBatch:
    """Pairs with as many further texts as their number says, from none to three."""
    draw = torch.Generator().manual_seed(3)
    height, width = loaded.image_size
    first, second = torch.randint(0, 256, (2, PAIRS, height, width, 3), dtype=torch.uint8, generator=draw)
    texts = [f"{WORDS[i % 4]} {i}" for i in range(PAIRS)]
    said = {
        "one": [[f"{WORDS[(i + j) % 4]} and {j}" for j in range(i % 4)] for i in range(PAIRS)],
        "other": [[f"not {text}"] if i < 5 else [] for i, text in enumerate(texts)],
    }
    value = torch.rand(PAIRS, generator=draw)
    value[2] = torch.nan
    labels = torch.rand(PAIRS, 3, generator=draw) > 0.5
    flat = torch.nn.functional.normalize(torch.randn(3, PAIRS, 16, generator=draw), dim=-1)
    teachers = {name: (Teacher(flat[0][rows], flat[1][rows], 5.0),) for name in TERMS}
    return StepBatch(
        {"pixels": torch.cat([first[rows], second[rows]])},
        None,
        [*texts[rows], "general words", "more of them"],
        None,
        MatchKeys.of_groups(torch.arange(PAIRS)[rows]),
        None,
        extras=BatchExtras(
            {name: all_of[rows] for name, all_of in said.items()},
            {"one": value[rows], "other": value[rows] + 1},
            labels[rows],
        ),
        groups=("image_2",),
        base_image=flat[2][rows],
        teachers=teachers,
    )


def _take(loaded: dual_encoder.DualEncoder, batch: StepBatch, micro: int | None, model: Any = None) -> Any:
    accelerator = Accelerator(cpu=True)
    loaded.zero_grad(set_to_none=True)
    taken = step.compute_gradients(model or loaded, loaded, batch, TERMS, micro, 0, accelerator)
    return taken, {n: w.grad.clone() for n, w in loaded.weights().items() if w.grad is not None}


def _close(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert len(one) > 3
    largest = max(grad.abs().max().item() for grad in one.values())
    for name, grad in one.items():
        assert (grad - other[name]).abs().max().item() <= 1e-5 * max(1.0, largest), name


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("base") / "clip")


@pytest.mark.parametrize("micro", [1, 3, PAIRS])
def test_micro_batches_change_nothing(base: Path, micro: int) -> None:
    loaded = loading.load_model(base)
    batch = _batch(loaded)
    plain, expected = _take(loaded, batch, None)
    assert plain.figures.terms["other"] != pytest.approx(
        plain.figures.terms["one"]
    )  # each saw its own texts and numbers
    cached, found = _take(loaded, batch, micro)
    assert cached.loss == pytest.approx(plain.loss, rel=1e-5)
    _close(found, expected)


def test_every_further_text_counts(base: Path) -> None:
    loaded = loading.load_model(base)
    batch = _batch(loaded)
    plain, _ = _take(loaded, batch, None)
    for name in ("one", "other"):
        said = {**batch.extras.texts, name: [["another text", *row[1:]] for row in batch.extras.texts[name]]}
        taken, _ = _take(loaded, replace(batch, extras=replace(batch.extras, texts=said)), None)
        changed = [term for term in TERMS if taken.figures.terms[term] != plain.figures.terms[term]]
        assert changed == [name]


def test_the_first_pairs_keep_their_own(base: Path) -> None:
    """A batch of four is the first four of eight: texts, second views, numbers and teachers."""
    loaded = loading.load_model(base)
    small, _ = _take(loaded, _batch(loaded).first(4), None)
    by_hand, _ = _take(loaded, _batch(loaded, slice(4)), None)
    assert small.figures.terms == pytest.approx(by_hand.figures.terms)


def _half(base: Path) -> list[tuple[float, dict[str, Tensor]]]:
    """What one of two processes finds in one pass, and in micro-batches."""
    loaded, rank = loading.load_model(base), collectives.rank()
    # Uneven on purpose: up to three further texts here, one at most there, and words of other lengths.
    batch = _batch(loaded, slice(rank * PAIRS // 2, (rank + 1) * PAIRS // 2))
    model = Accelerator(cpu=True).prepare(loaded)
    both = [_take(loaded, batch, micro, model) for micro in (None, 3)]
    return [(taken.loss, grads) for taken, grads in both]


def test_two_processes_change_nothing(base: Path, tmp_path: Path) -> None:
    plain, expected = _take(loaded := loading.load_model(base), _batch(loaded), None)
    for found in started(2, tmp_path, _half, base):
        assert len(found) == 2
        for loss, grads in found:
            assert loss == pytest.approx(plain.loss, rel=1e-5)
            _close(grads, expected)
