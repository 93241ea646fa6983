"""The only place that talks to other processes. With one process every function is the identity.

Legend: w processes, b rows of this process, d width.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from domainclip.distributed import heartbeat

Result = TypeVar("Result")
_PARTING = "domainclip/parting"  # in the store where the processes met: how many have come to the end


def process_count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _together() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if _together() else 0


def gather(rows: Tensor) -> Tensor:
    """(b, …) of every process -> (w·b, …) on all of them, in order of rank, with gradients.

    The backward pass sums over the processes. The loss is the mean of what they compute, so the sum is w
    times the true gradient of a process's own rows, and the mean that data-parallel training takes over
    processes gives exactly the one-process gradient. Without this, what others say of the rows is missing.
    """
    return _Gather.apply(rows) if _together() else rows


def ring_exchange(tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
    """Sends to the next process of a ring what the one before will send here, alike in number and shape.

    Both are under way at once; the call that comes back waits, and gives what has arrived.
    """
    if process_count() == 1:
        return lambda: list(tensors)
    after, before = (rank() + 1) % process_count(), (rank() - 1) % process_count()
    sent = [tensor.contiguous() for tensor in tensors]
    came = [torch.empty_like(tensor) for tensor in sent]
    each = [(dist.isend, after, sent), (dist.irecv, before, came)]
    works = dist.batch_isend_irecv([dist.P2POp(op, one, peer) for op, peer, all_ in each for one in all_])

    def arrived() -> list[Tensor]:
        while works:
            works.pop().wait()  # forgotten, for it holds what was sent
        return came

    return arrived


def mean(values: Tensor) -> Tensor:
    """The mean over the processes, without gradient; the same on all of them."""
    if not _together():
        return values
    total = values.detach().clone()
    with heartbeat.waiting_for("the loss of all processes"):
        dist.all_reduce(total)
    return total / process_count()


def gather_objects(value: Any) -> list[Any]:
    """The value of every process, in order of rank."""
    if not _together():
        return [value]
    values: list[Any] = [None] * process_count()
    with heartbeat.waiting_for("a word of all processes"):
        dist.all_gather_object(values, value)
    return values


def on_first_process(call: Callable[[], Result]) -> Result:
    """What the first process finds, for all; or its error, raised by all, so that none waits forever."""
    if not _together():
        return call()
    outcome: tuple[Any, Exception | None] = (None, None)
    with keep_alive("the first process"):
        if rank() == 0:
            try:
                outcome = (call(), None)
            except Exception as error:
                outcome = (None, error)
    result, problem = gather_objects(outcome)[0]
    if problem is not None:
        raise problem
    return result  # type: ignore[no-any-return]


def max_over_processes(value: int) -> int:
    """The largest of the processes' values: how all agree on one decision, as to stop."""
    return int(max(gather_objects(value)))


def wait_for_all() -> None:
    """To be called by all after the last word between them: waits, a little, until each has come here.

    A process that ends closes its connections, and breaks off what another still reads from them.
    """
    if not _together():
        return
    store, until = dist.distributed_c10d._get_default_store(), time.monotonic() + heartbeat.limit()
    with suppress(RuntimeError):  # it goes with the first process, which leaves when all have come
        come = store.add(_PARTING, 1)
        all_ = come + -come % process_count()  # of those who come now, if all have been here before
        while store.add(_PARTING, 0) < all_ and time.monotonic() < until:
            time.sleep(0.01)


@contextmanager
def keep_alive(what: str) -> Iterator[None]:
    """Work of which one process may have much more than another: none is given up while it is at it.

    Whoever works says so from time to time; one that says nothing for `train.timeout` has stopped. All
    processes enter it and leave it together; never one inside another. `what` the others wait for.
    """
    if not _together():
        yield
        return
    signs = _Signs()
    try:
        yield
    except Exception:
        with suppress(RuntimeError):  # what went wrong here says more
            signs.done()
        raise
    with heartbeat.waiting_for(what):
        signs.done()


class _Signs:
    """Signs of life of this process, beside its work, until all processes are done with theirs."""

    def __init__(self) -> None:
        # Main threads talk in a group of their own, in which a message of this one would be taken for theirs.
        self._group = _signs_group()
        self._finished = threading.Event()
        self._problem: RuntimeError | None = None
        self._thread = threading.Thread(target=self._give, name="signs of life", daemon=True)
        self._thread.start()

    def done(self) -> None:
        """Waits for the others.

        Raises: RuntimeError when one of them has fallen silent, or is gone.
        """
        self._finished.set()
        self._thread.join()
        if self._problem is not None:
            raise self._problem

    def _give(self) -> None:
        at_work = 1
        try:
            while at_work:
                # Whoever has finished is back at once and waits here for the next sign of the others.
                mine = torch.tensor(int(not self._finished.wait(heartbeat.limit() / 4)))
                dist.all_reduce(mine, group=self._group)
                at_work = int(mine)
        except RuntimeError as error:
            self._problem = error


_group_of: tuple[Any, Any] = (None, None)


def _signs_group() -> Any:
    """The group of the processes for signs of life, made once."""
    global _group_of
    if _group_of[0] is not dist.group.WORLD:
        limit = timedelta(seconds=heartbeat.limit())
        _group_of = (dist.group.WORLD, dist.new_group(backend="gloo", timeout=limit))
    return _group_of[1]


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.rows = rows.shape[0]
        parts = [torch.empty_like(rows) for _ in range(process_count())]
        with heartbeat.waiting_for("the embeddings of all processes"):
            dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        with heartbeat.waiting_for("the gradients of all processes"):
            dist.all_reduce(total)
        return total[rank() * ctx.rows : (rank() + 1) * ctx.rows]
