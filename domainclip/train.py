"""The loop: one straight page. Everything it remembers is listed in `State`, and exactly that is saved."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, exp
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from domainclip import checkpoint, distributed, keep, prose, schedule, speed, step, stopping
from domainclip.alarms import Alarm, Watch
from domainclip.chunks import Captions
from domainclip.data.batches import batches
from domainclip.data.collate import Batch, Pairs
from domainclip.data.order import shares
from domainclip.data.quarantine import Bad
from domainclip.errors import DivergedError, Interrupted
from domainclip.progress import Display
from domainclip.recipe import Recipe
from domainclip.towers import Towers

log = logging.getLogger("domainclip")


@dataclass(frozen=True)
class Kept:
    """What is computed once because it never changes."""

    image: np.ndarray | None = None  # (n, d) embeddings of the training images, or (n, t, w) hidden states
    text: keep.Texts | None = None  # embeddings of the captions under a locked text tower
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
    bad: tuple[Bad, ...] = ()  # pictures that could not be read when features were kept
    digests: Mapping[str, str] = field(default_factory=dict)  # by id: of the picture
    captions: Captions | None = None  # how texts become tokens, or the hidden states that are kept of them
    notes: tuple[str, ...] = ()  # what is kept and what is not, for the user


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
                moments[f"{name}:{key}"] = torch.as_tensor(value)
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
            self.optimizer.state[weight][key] = schedule.moment(self.optimizer, key, place.clone())


def total_steps(recipe: Recipe, pairs: int) -> int:
    """How many steps the epochs take; the last one may begin another epoch, so none is short."""
    return max(1, ceil(recipe.train.epochs * pairs / min(recipe.train.batch_size, pairs)))


@dataclass(frozen=True)
class Trained:
    """What the loop tells afterwards."""

    steps: int
    bad: list[Bad]  # pictures that could not be read, each replaced by the next one that could
    micro_batch_size: int | None = None  # pairs held at once, as it was set or measured
    alarms: tuple[Alarm, ...] = ()  # what looked wrong on the way


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
    held = settings.micro_batch_size
    if saved is not None:
        groups, facts = checkpoint.load(saved)
        state.restore(groups, facts["step"])
        held = facts.get("micro_batch_size", held)  # what was measured once: dropout is drawn by micro-batch
    job.towers.learn({name.split("/")[0] for name in learning})
    model, wrapped = accelerator.prepare(job.towers, optimizer)
    metrics = _Metrics(folder / "metrics.jsonl", state.step)
    watch = _watch(job, batch_size, metrics.before)
    rows_of = batches(job.pairs, state.step, total, batch_size, seed=settings.seed, workers=settings.workers)
    bad = {item.place: item for item in job.bad}
    weights = {name: weight for name, (weight, _) in job.terms.items()}
    with (
        stopping.Stopping(settings.stop_after) as asked,
        checkpoint.Saver() as saver,
        Display(total, state.step, batch_size, quiet or distributed.rank() > 0, weights) as display,
        speed.layers(job.towers, settings),
    ):
        while state.step < total:
            began = time.monotonic()
            rows = next(rows_of)
            waited = time.monotonic() - began
            bad.update((item.place, item) for item in rows.bad)
            batch = bring(job, rows, state.step, accelerator.device)
            if held == "auto":
                held = speed.held_at_once(job.towers, batch, job.terms, accelerator)
            schedule.set_rate(optimizer, schedule.factor(state.step, total, settings.warmup))
            seed = settings.seed * 1_000_003 + state.step
            taken = step.take(model, job.towers, batch, job.terms, held, seed, accelerator)
            norm = float(accelerator.clip_grad_norm_(list(learning.values()), settings.max_grad_norm))
            _refuse_infinite(taken, norm, rows, state.step)
            wrapped.step()
            wrapped.zero_grad(set_to_none=True)
            job.towers.clamp_scale()
            state.step += 1

            record = {
                "step": state.step,
                "epoch": state.step * batch_size / len(job.pairs),
                **_figures(taken, norm, optimizer, job.towers),
                "pairs_per_second": display.rate(state.step),
                "waited": waited / max(1e-9, time.monotonic() - began),
            }
            for alarm in watch.see(record):
                log.warning("alarm: %s", alarm.text)
            stop = distributed.largest(asked.asked())
            if due(state.step, settings.log_every, total):
                metrics.write(record)
            if due(state.step, settings.save_every, total) or stop:
                _save(saver, job, state, held, folder)
            display.show(state.step, record)
            if stop and state.step < total:
                distributed.first(saver.wait)
                raise _interrupted(job, stop, state.step, total, folder)
        distributed.first(saver.wait)
    return Trained(total, list(bad.values()), None if held == "auto" else held, tuple(watch.raised))


def _watch(job: Job, batch_size: int, before: list[dict[str, Any]]) -> Watch:
    """The alarms, which have seen what earlier sessions wrote."""
    watch = Watch(batch_size, exp(job.towers.max_log_scale), frozenset(job.terms))
    for line in before:
        watch.see(line)
    return watch


def _figures(
    taken: step.Taken, norm: float, optimizer: torch.optim.Optimizer, model: Towers
) -> dict[str, Any]:
    """What a line of metrics.jsonl says of a step."""
    return {
        "loss": taken.loss,
        "terms": taken.terms,
        "scale": model.scale.item(),
        "learning_rate": optimizer.param_groups[0]["lr"],
        "grad_norm": norm,
        "image_cosine": taken.image_cosine,
        "text_cosine": taken.text_cosine,
    }


def due(step: int, every: int, total: int) -> bool:
    """Whether something that happens every so many steps, and at the end, happens now."""
    return step % every == 0 or step == total


def bring(job: Job, rows: Batch, at: int, device: torch.device) -> step.StepBatch:
    """The rows on the device, with what is kept, and this process's share of the step's general sentences."""
    kept, texts, anchors = job.kept, rows.texts, None
    if kept.sentences is not None and kept.anchors is not None:
        all_drawn = prose.drawn(at, job.recipe.prose, job.recipe.train.seed)
        mine = shares(all_drawn, distributed.rank(), distributed.world(), "prose.per_step")
        texts = [*texts, *(kept.sentences[i] for i in mine)]
        anchors = kept.anchors[mine].to(device)
    image, kept_image = rows.image, None
    if kept.image is not None:
        found = torch.from_numpy(kept.image[rows.index.numpy()])
        image, kept_image = ({"hidden": found}, None) if found.ndim > 2 else (None, found.to(device))
    return step.StepBatch(
        image=None if image is None else {k: v.to(device, non_blocking=True) for k, v in image.items()},
        kept_image=kept_image,
        texts=texts,
        kept_text=None if kept.text is None else kept.text.embeddings(rows.texts).to(device),
        group=rows.group.to(device),
        anchor_prose=anchors,
        captions=job.captions,
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


def _save(saver: checkpoint.Saver, job: Job, state: State, held: int | None, folder: Path) -> None:
    facts = {"step": state.step, "identity": job.identity, "micro_batch_size": held}
    place, keep = folder / "checkpoints", job.recipe.train.keep
    distributed.first(lambda: saver.save(place, state.step, state.groups(), facts, keep))


def _interrupted(job: Job, asked: int, at: int, total: int, folder: Path) -> Interrupted:
    queued = distributed.first(stopping.requeue) if job.recipe.train.requeue else None
    said = f"stopped at step {at} of {total}; continue with --resume --run-dir {folder}"
    return stopping.interrupted(asked, said if queued is None else f"{said}; {queued}")


class _Metrics:
    """metrics.jsonl, cut back to the step it continues from."""

    def __init__(self, file: Path, start: int) -> None:
        self.file = file
        self.began = time.monotonic()
        self.before: list[dict[str, Any]] = []  # what earlier sessions wrote
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
                    self.before.append(record)
                    self.began = time.monotonic() - record["seconds"]  # of all sessions together
        file.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        if distributed.rank() > 0:
            return
        record = {**record, "seconds": time.monotonic() - self.began}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
