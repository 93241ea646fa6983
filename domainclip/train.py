"""The loop: one straight page. Everything it remembers is listed in `State`, and exactly that is saved."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader

from domainclip import checkpoint, distributed, prose, schedule, step
from domainclip.data.collate import Batch, Pairs, collate
from domainclip.data.order import positions, rank_slice, shares
from domainclip.data.quarantine import Bad
from domainclip.errors import DivergedError, ExitCode, Interrupted
from domainclip.progress import Display
from domainclip.recipe import Recipe
from domainclip.towers import Towers


@dataclass(frozen=True)
class Kept:
    """What is computed once because it never changes."""

    image: Tensor | None = None  # (n, d) embeddings of the training images under a locked image tower
    text: dict[str, Tensor] | None = None  # caption -> (d,) under a locked text tower
    sentences: list[str] | None = None  # general sentences, and
    anchors: Tensor | None = None  # (len(sentences), d) what the base says of them


@dataclass(frozen=True)
class Job:
    """What is trained, on what."""

    recipe: Recipe
    towers: Towers
    factors: dict[str, float]  # on the learning rate, by weight
    terms: step.Terms
    pairs: Pairs
    kept: Kept
    rate: float  # peak learning rate
    identity: dict[str, Any]  # what a checkpoint must agree with before it may continue this job
    bad: tuple[Bad, ...] = ()  # pictures that could not be read when embeddings were kept


@dataclass
class State:
    """All that the loop remembers between two steps; order and randomness are functions of `step`."""

    step: int
    weights: Mapping[str, Tensor]
    optimizer: torch.optim.Optimizer

    def groups(self) -> dict[str, dict[str, Tensor]]:
        """Tensors to save: the weights that learn, and the optimizer's moments under the same names."""
        moments = {}
        for name, weight in self.weights.items():
            for key, value in self.optimizer.state.get(weight, {}).items():
                moments[f"{name}:{key}"] = value
        return {"weights": dict(self.weights), "optimizer": moments}

    def restore(self, groups: dict[str, dict[str, Tensor]], at: int) -> None:
        """The inverse of `groups`."""
        self.step = at
        for name, weight in self.weights.items():
            with torch.no_grad():
                weight.copy_(groups["weights"][name])
        for full, value in groups.get("optimizer", {}).items():
            name, _, key = full.rpartition(":")
            weight = self.weights[name]
            place = value if key == "step" else value.to(weight.device)
            self.optimizer.state[weight][key] = place.clone()


def total_steps(recipe: Recipe, pairs: int) -> int:
    """How many steps the epochs take; the last one may begin another epoch, so none is short."""
    return max(1, ceil(recipe.train.epochs * pairs / min(recipe.train.batch_size, pairs)))


@dataclass(frozen=True)
class Trained:
    """What the loop tells afterwards."""

    steps: int
    bad: list[Bad]  # pictures that could not be read, each replaced by the next one that could


def train(
    job: Job, folder: Path, saved: Path | None, accelerator: Accelerator, quiet: bool = False
) -> Trained:
    """Trains to the last step; continues from the checkpoint `saved`.

    Raises: DivergedError before a step with a loss or gradient that is not finite; Interrupted after a
    signal, with a checkpoint written; ModelError when a checkpoint cannot be written.
    """
    settings = job.recipe.train
    total = total_steps(job.recipe, len(job.pairs))
    batch_size = min(settings.batch_size, len(job.pairs))
    learning = {name: w for name, w in job.towers.weights().items() if job.factors[name] > 0}
    optimizer = schedule.make_optimizer(job.towers, job.factors, settings, job.rate)
    state = State(0, learning, optimizer)
    if saved is not None:
        groups, facts = checkpoint.load(saved)
        state.restore(groups, facts["step"])
    job.towers.learn({name.split("/")[0] for name in learning})
    model, wrapped = accelerator.prepare(job.towers, optimizer)
    metrics = _Metrics(folder / "metrics.jsonl", state.step)
    batches = _batches(job, state.step, total, batch_size)
    bad = {item.place: item for item in job.bad}
    with (
        _Signals() as signals,
        Display(total, state.step, batch_size, quiet or distributed.rank() > 0) as display,
    ):
        while state.step < total:
            rows = next(batches)
            bad.update((item.place, item) for item in rows.bad)
            batch = bring(job, rows, state.step, accelerator.device)
            schedule.set_rate(optimizer, schedule.factor(state.step, total, settings.warmup))
            seed = settings.seed * 1_000_003 + state.step
            taken = step.take(
                model, job.towers, batch, job.terms, settings.micro_batch_size, seed, accelerator
            )
            norm = float(accelerator.clip_grad_norm_(list(learning.values()), settings.max_grad_norm))
            _refuse_infinite(taken, norm, rows, state.step)
            wrapped.step()
            wrapped.zero_grad(set_to_none=True)
            job.towers.clamp_scale()
            state.step += 1

            record = {
                "step": state.step,
                "epoch": state.step * batch_size / len(job.pairs),
                "loss": taken.loss,
                "terms": taken.terms,
                "scale": job.towers.scale.item(),
                "learning_rate": optimizer.param_groups[0]["lr"],
                "grad_norm": norm,
                "pairs_per_second": display.rate(state.step),
            }
            stop = distributed.largest(signals.received)
            if due(state.step, settings.log_every, total):
                metrics.write(record)
            if due(state.step, settings.save_every, total) or stop:
                _save(job, state, folder)
            display.show(state.step, record)
            if stop and state.step < total:
                raise _interrupted(stop, state.step, total, folder)
    return Trained(total, list(bad.values()))


def due(step: int, every: int, total: int) -> bool:
    """Whether something that happens every so many steps, and at the end, happens now."""
    return step % every == 0 or step == total


def _batches(job: Job, start: int, total: int, batch_size: int) -> Iterator[Batch]:
    """This process's share of each step's batch, from any step on."""
    settings = job.recipe.train
    order = (
        rank_slice(
            positions(at, batch_size, len(job.pairs), settings.seed), distributed.rank(), distributed.world()
        )
        for at in range(start, total)
    )
    loader: DataLoader[Any] = DataLoader(
        job.pairs, batch_sampler=order, collate_fn=collate, num_workers=settings.workers
    )
    return iter(loader)


def bring(job: Job, rows: Batch, at: int, device: torch.device) -> step.StepBatch:
    """The rows on the device, with what is kept, and this process's share of the step's general sentences."""
    kept, texts, anchors = job.kept, rows.texts, None
    if kept.sentences is not None and kept.anchors is not None:
        all_drawn = prose.drawn(at, job.recipe.prose, job.recipe.train.seed)
        mine = shares(all_drawn, distributed.rank(), distributed.world(), "prose.per_step")
        texts = [*texts, *(kept.sentences[i] for i in mine)]
        anchors = kept.anchors[mine].to(device)
    return step.StepBatch(
        image=None
        if rows.image is None
        else {k: v.to(device, non_blocking=True) for k, v in rows.image.items()},
        kept_image=None if kept.image is None else kept.image[rows.index].to(device),
        texts=texts,
        kept_text=None if kept.text is None else torch.stack([kept.text[t] for t in rows.texts]).to(device),
        group=rows.group.to(device),
        anchor_prose=anchors,
    )


def _refuse_infinite(taken: step.Taken, norm: float, rows: Batch, at: int) -> None:
    loss = torch.tensor([taken.loss, norm])
    if bool(loss.isfinite().all()):
        return
    # The loss is the same everywhere, so every process comes here; the broken row is with one of them.
    broken = [rows.ids[i] for i in taken.broken]
    named = [item for share in distributed.gather_objects(broken) for item in share] or rows.ids
    more = f" and {len(named) - 8} more" if len(named) > 8 else ""
    raise DivergedError(
        f"step {at + 1}: loss {taken.loss}, gradient norm {norm}: stopped before the step, weights are "
        f"unchanged; items: {', '.join(named[:8])}{more}; lower train.learning_rate, then start again"
    )


def _save(job: Job, state: State, folder: Path) -> None:
    facts = {"step": state.step, "identity": job.identity}
    place, keep = folder / "checkpoints", job.recipe.train.keep
    distributed.first(lambda: checkpoint.save(place, state.step, state.groups(), facts, keep))


def _interrupted(number: int, at: int, total: int, folder: Path) -> Interrupted:
    code = ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.TERMINATED
    return Interrupted(f"stopped at step {at} of {total}; continue with --resume --run-dir {folder}", code)


class _Metrics:
    """metrics.jsonl, cut back to the step it continues from."""

    def __init__(self, file: Path, start: int) -> None:
        self.file = file
        self.began = time.monotonic()
        if distributed.rank() > 0:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if start and file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                try:
                    record = json.loads(line)
                except ValueError:  # the line that a kill cut short
                    continue
                if record["step"] <= start:
                    kept.append(line)
                    self.began = time.monotonic() - record["seconds"]  # of all sessions together
        file.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        if distributed.rank() > 0:
            return
        record = {**record, "seconds": time.monotonic() - self.began}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")


class _Signals:
    """Notes SIGINT and SIGTERM for the next step boundary; a second one stops at once."""

    received = 0

    def __enter__(self) -> _Signals:
        self.before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, signal.SIG_DFL)

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
