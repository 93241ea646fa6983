"""A micro-batch that does not fit is halved before the first step, and named with the ways out after it."""

from __future__ import annotations

import pytest
import torch

from domainclip.distributed import collectives
from domainclip.errors import ModelError
from domainclip.training.out_of_memory import does_not_fit, fit_micro_batch


class _Device:
    """Has room for so many pairs."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.tried: list[int | None] = []
        self.freed = 0

    def compute(self, size: int | None) -> str:
        self.tried.append(size)
        if (10 if size is None else size) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "done"

    def reset(self) -> None:
        self.freed += 1


def _fit(device: _Device, size: int | None) -> tuple[str, int | None]:
    return fit_micro_batch(device.compute, device.reset, size, 10)


@pytest.mark.parametrize(
    ("room", "size", "tried"),
    [
        (10, None, [None]),
        (4, None, [None, 5, 3]),
        (1, 7, [7, 4, 2, 1]),
        (5, 64, [64, 5]),  # more than there are pairs is all of them
    ],
)
def test_the_size_is_halved_until_it_fits(room: int, size: int | None, tried: list[int | None]) -> None:
    device = _Device(room)
    assert _fit(device, size) == ("done", tried[-1])
    assert (device.tried, device.freed) == (tried, len(tried) - 1)


def test_a_pair_that_does_not_fit_is_named_with_the_ways_out() -> None:
    with pytest.raises(ModelError) as caught:
        _fit(_Device(0), None)
    assert str(caught.value) == (
        "train.micro_batch_size: the device has too little memory for a step with 1 pairs at once: set "
        "train.activation_checkpointing=true, or strategy=lora or strategy=locked_image"
    )


def test_several_processes_do_not_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectives, "process_count", lambda: 2)
    device = _Device(4)
    with pytest.raises(ModelError, match="with 10 pairs at once: set it to 5, or set train"):
        _fit(device, None)
    assert device.tried == [None]


def test_another_error_is_not_caught() -> None:
    with pytest.raises(ValueError, match="other"):
        fit_micro_batch(lambda size: (_ for _ in ()).throw(ValueError("other")), lambda: None, None, 10)
    assert "set it to 4" in str(does_not_fit(7))
