"""Collectives: all communication between processes. With one process every function is the identity.

Legend: w processes, b rows of this process, d width.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from domainclip.distributed import heartbeat

Result = TypeVar("Result")
P = ParamSpec("P")
_FINISHED = "domainclip/finished"  # key in the store of the processes: how many have finished


def process_count() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if _is_distributed() else 1


def local_process_count() -> int:
    """Return the number of processes of the run on this machine, which share its cores."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))) if _is_distributed() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if _is_distributed() else 0


def gather(rows: Tensor) -> Tensor:
    """Gather (b, …) of every process into (w·b, …) on all of them, in order of rank, with gradients.

    The backward pass sums over the processes. The loss is the mean of their losses, so the sum is w times the
    true gradient of a process's rows, and the mean that data-parallel training takes over processes gives
    exactly the one-process gradient. Without it, the gradients from other processes' losses would be missing.
    """
    return _Gather.apply(rows) if _is_distributed() else rows


def ring_exchange(tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
    """Start to send tensors to the next process of a ring and to receive as many from the previous one.

    The tensors of all processes have equal shapes. The returned function waits for those that are received.
    """
    if process_count() == 1:
        return lambda: list(tensors)
    after, before = (rank() + 1) % process_count(), (rank() - 1) % process_count()
    sent = [tensor.contiguous() for tensor in tensors]
    received = [torch.empty_like(tensor) for tensor in sent]
    transfers = [(dist.isend, after, sent), (dist.irecv, before, received)]
    works = dist.batch_isend_irecv(
        [dist.P2POp(op, tensor, peer) for op, peer, tensors_ in transfers for tensor in tensors_]
    )

    def wait() -> list[Tensor]:
        while works:
            works.pop().wait()  # dropped, since it holds the tensors that were sent
        return received

    return wait


def mean(values: Tensor) -> Tensor:
    """Return the mean over the processes, without gradient; equal on all of them."""
    if not _is_distributed():
        return values
    total = values.detach().clone()
    with heartbeat.waiting_for("the loss of all processes"):
        dist.all_reduce(total)
    return total / process_count()


def gather_on_hosts(rows: Tensor, task: str) -> Tensor:
    """Return (w·b, …) of tensors (b, …) in main memory, in order of rank; `task` is what is waited for."""
    if not _is_distributed():
        return rows
    gathered = rows.new_empty(process_count() * len(rows), *rows.shape[1:])
    with heartbeat.waiting_for(task):
        _all_gather(gathered, rows, message_group())
    return gathered


def gather_objects(value: Any) -> list[Any]:
    """Return the values of all processes, in order of rank."""
    if not _is_distributed():
        return [value]
    values: list[Any] = [None] * process_count()
    with heartbeat.waiting_for("a value of every process"):
        dist.all_gather_object(values, value, group=message_group())
    return values


def on_first_process(call: Callable[[], Result]) -> Result:
    """Call a function on the first process; all processes get its result, or raise its error."""
    if not _is_distributed():
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


def first_process(function: Callable[P, Result]) -> Callable[P, Result]:
    """Decorate a function that all processes call: the first one runs it, and all get its result or error.

    For functions that read or write shared files. All processes have to call them in the same order.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Result:
        return on_first_process(partial(function, *args, **kwargs))

    return call


def on_first_of_machine(call: Callable[[], Result]) -> Result:
    """Call a function on the first process of every machine; the other processes there get its result.

    For what lies on the disk of a machine. All processes raise the error of any call.
    """
    if not _is_distributed():
        return call()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    outcome: tuple[Any, Exception | None] = (None, None)
    with keep_alive("the first process of a machine"):
        if local == 0:
            try:
                outcome = (call(), None)
            except Exception as error:
                outcome = (None, error)
    outcomes = gather_objects(outcome)
    problem = next((error for _, error in outcomes if error is not None), None)
    if problem is not None:
        raise problem
    return outcomes[rank() - local][0]  # type: ignore[no-any-return]


def max_over_processes(value: int) -> int:
    """Return the largest value of all processes: how they agree on one decision, such as to stop."""
    if not _is_distributed():
        return int(value)
    largest = torch.tensor(int(value))
    with heartbeat.waiting_for("a value of every process"):
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=message_group())
    return int(largest)


def wait_for_all() -> None:
    """Wait until every process has come here, at most for train.timeout; the last collective of a command.

    A process that ends closes its connections, and cuts off what another one still reads from them.
    """
    if not _is_distributed():
        return
    store, until = dist.distributed_c10d._get_default_store(), time.monotonic() + heartbeat.timeout_seconds()
    with suppress(RuntimeError):  # the store ends with the first process, which leaves when all have come
        arrived = store.add(_FINISHED, 1)
        expected = arrived + -arrived % process_count()  # at the next multiple, in case of an earlier wait
        while store.add(_FINISHED, 0) < expected and time.monotonic() < until:
            time.sleep(0.01)


@contextmanager
def keep_alive(task: str) -> Iterator[None]:
    """Let one process work longer than train.timeout while the others wait for `task`.

    A process that works sends a sign of life from time to time; one that is silent for train.timeout has
    stopped. All processes enter and leave together; blocks are not nested.
    """
    if not _is_distributed():
        yield
        return
    signals = _KeepAliveThread()
    try:
        yield
    except Exception:
        with suppress(RuntimeError):  # the error of this process is the more informative one
            signals.finish()
        raise
    with heartbeat.waiting_for(task):
        signals.finish()


class _KeepAliveThread:
    """Exchanges signs of life during the work of this process, until all processes have finished theirs."""

    def __init__(self) -> None:
        # In a group of its own: in that of the main threads, its messages would be taken for theirs.
        self._group = _gloo_group("keep alive")
        self._finished = threading.Event()
        self._problem: RuntimeError | None = None
        self._thread = threading.Thread(target=self._exchange, name="keep alive", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until the other processes have finished as well.

        Raises: RuntimeError when one of them is silent, or has ended.
        """
        self._finished.set()
        self._thread.join()
        if self._problem is not None:
            raise self._problem

    def _exchange(self) -> None:
        working = 1  # processes
        try:
            while working:
                # A process that has finished returns at once, and waits for the next sign of the others.
                count = torch.tensor(int(not self._finished.wait(heartbeat.timeout_seconds() / 4)))
                dist.all_reduce(count, group=self._group)
                working = int(count)
        except RuntimeError as error:
            self._problem = error


_groups: dict[str, tuple[Any, Any]] = {}  # by purpose: the world in which it was made, and the group


def _gloo_group(purpose: str) -> Any:
    """Return the process group of a purpose, over the network of the hosts, made once."""
    world = dist.group.WORLD
    if purpose not in _groups or _groups[purpose][0] is not world:
        timeout = timedelta(seconds=heartbeat.timeout_seconds())
        _groups[purpose] = (world, dist.new_group(backend="gloo", timeout=timeout))
    return _groups[purpose][1]


def message_group() -> Any:
    """Return the group for messages between the hosts, which never wait for the device; None: the default.

    Over NCCL a message would be copied to the device and back, and a process that is lost would be noticed
    only when the device has waited in vain.
    """
    return None if dist.get_backend() == "gloo" else _gloo_group("messages")


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _all_gather(gathered: Tensor, rows: Tensor, group: Any = None) -> None:
    """Fill (w·b, …) with the rows (b, …) of every process. torch 2.13 renamed it."""
    (getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor)(gathered, rows, group=group)


def _reduce_scatter(own: Tensor, rows: Tensor) -> None:
    """Fill (b, …) with this process's rows of the sum of (w·b, …) over the processes."""
    (getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor)(own, rows)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        gathered = rows.new_empty(process_count() * len(rows), *rows.shape[1:])
        with heartbeat.waiting_for("the embeddings of all processes"):
            _all_gather(gathered, rows.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        gradient = grads[0].contiguous()
        own = gradient.new_empty(len(gradient) // process_count(), *gradient.shape[1:])
        with heartbeat.waiting_for("the gradients of all processes"):
            _reduce_scatter(own, gradient)
        return own
