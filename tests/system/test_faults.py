"""The numbered faults that a run must survive, as far as no other file has the place for them.

Tests name their number, "Fault 7" in a docstring or fault_7 in a name; the last test here finds them all.
"""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from domainclip import components
from domainclip.config import loading
from domainclip.config.training import TrainConfig
from domainclip.data.batching.matches import MatchKeys
from domainclip.errors import Interrupted, ModelError, RecipeError
from domainclip.models import loading as models_loading
from domainclip.objectives.contrastive import Contrastive
from domainclip.pipelines import finetune
from domainclip.strategies.full import Full
from domainclip.training import layer_execution, stage_run, step, views
from domainclip.training.checkpointing import checkpoint
from domainclip.training.run_context import RunOptions
from domainclip.training.setup import StageInputs
from tests.support.tiny_models import tiny_clip

STEPS, PAIRS, BATCH = 8, 40, 16  # of the recipe of the fixtures


def _finetune(file: Path, folder: Path, *overrides: str, resume: bool = False) -> Path | None:
    options = ["evaluate.cache_embeddings=false", *overrides]
    return finetune.finetune(
        loading.load_recipe(str(file), options), RunOptions(folder=folder, resume=resume, quiet=True)
    )


def _end(folder: Path) -> dict[str, Any]:
    """Every tensor of the last checkpoint."""
    last = checkpoint.newest_checkpoint(folder / "checkpoints")
    assert last is not None
    assert last.name == f"step-{STEPS:06d}"
    return {f"{g}/{n}": tensor for g, some in checkpoint.load(last)[0].items() for n, tensor in some.items()}


def _assert_same_end(one: Path, other: Path) -> None:
    found, expected = _end(one), _end(other)
    assert found.keys() == expected.keys()
    assert [name for name, tensor in found.items() if not torch.equal(tensor, expected[name])] == []


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str]]]:
    """Step and item ids of every batch that was trained on."""
    seen: list[tuple[int, list[str]]] = []
    plain = stage_run.to_step_batch

    def note(stage: StageInputs, rows: Any, at: int, device: torch.device) -> Any:
        seen.append((at, rows.ids))
        return plain(stage, rows, at, device)

    monkeypatch.setattr(stage_run, "to_step_batch", note)
    return seen


def test_stopped_after_every_step(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: list[tuple[int, list[str]]]
) -> None:
    """Fault 1 and fault 2: eight sessions of one step each, three of them inside one epoch.

    Whatever random state a session begins with, it ends like the run nobody stopped: fault 9, for there is no
    file of random states that could be missing.
    """
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    _finetune(recipe_file, straight)
    expected = list(shown)
    shown.clear()
    plain = step.compute_gradients
    monkeypatch.setattr(
        step, "compute_gradients", lambda *a: (os.kill(os.getpid(), signal.SIGTERM), plain(*a))[1]
    )
    for session in range(STEPS):
        torch.manual_seed(900 + session)
        np.random.seed(900 + session)
        random.seed(900 + session)
        with suppress(Interrupted):  # the last session comes to the end
            _finetune(recipe_file, stopped, resume=session > 0)
    assert shown == expected
    order = [item for _, ids in shown for item in ids]
    assert Counter(order[:PAIRS]) == Counter(order[PAIRS : 2 * PAIRS])  # each epoch shows every item,
    assert set(Counter(order[:PAIRS]).values()) == {1}  # once
    _assert_same_end(stopped, straight)


def test_other_workers_after_a_resume(recipe_file: Path, tmp_path: Path) -> None:
    """Fault 3: the same items and the same crops, whoever makes them."""
    _finetune(recipe_file, tmp_path / "straight", "train.augmentation=crop")
    with pytest.raises(Interrupted):
        _finetune(recipe_file, tmp_path / "other", "train.augmentation=crop", "train.time_limit=0s")
    _finetune(recipe_file, tmp_path / "other", "train.augmentation=crop", "train.workers=2", resume=True)
    _assert_same_end(tmp_path / "other", tmp_path / "straight")


def test_a_second_signal_ends_at_once(recipe_file: Path, tmp_path: Path) -> None:
    """Fault 7: the first is obeyed at the end of the step, the second now."""
    pid = os.fork()
    if pid == 0:

        def twice(*_: Any) -> Any:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

        step.compute_gradients = twice  # type: ignore[assignment]
        with suppress(BaseException):
            _finetune(recipe_file, tmp_path / "run")
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    assert not (tmp_path / "run" / "checkpoints").exists()


# --- a kill at every boundary of a save ----------------------------------------------------------------


def _killed_at(boundary: int, folder: Path) -> bool:
    """Saves step 2 in a process that is killed before or after a change of the disk; False: it came through."""
    pid = os.fork()
    if pid == 0:
        passed = 0

        def around(call: Any) -> Any:
            def wrapped(*arguments: Any, **options: Any) -> Any:
                nonlocal passed
                for turn in (0, 1):
                    result = call(*arguments, **options) if turn else None
                    passed += 1
                    if passed == boundary:
                        os.kill(os.getpid(), signal.SIGKILL)
                return result

            return wrapped

        for place, name in ((checkpoint, "save_file"), (os, "rename"), (os, "fsync"), (os, "mkdir")):
            setattr(place, name, around(getattr(place, name)))
        checkpoint.shutil.rmtree = around(checkpoint.shutil.rmtree)  # type: ignore[assignment]
        Path.write_text = around(Path.write_text)  # type: ignore[method-assign]
        with suppress(BaseException):
            checkpoint.save(folder, 2, {"weights": {"w": torch.full((3,), 2.0)}}, {"step": 2}, keep=1)
            os._exit(0)
        os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def test_killed_at_every_boundary_of_a_save(tmp_path: Path) -> None:
    """Fault 5: with one checkpoint kept, either the old or the new one is whole, and nothing else stays."""
    kills, found = 0, Counter[str]()
    for boundary in range(1, 100):
        folder = tmp_path / str(boundary)
        checkpoint.save(folder, 1, {"weights": {"w": torch.full((3,), 1.0)}}, {"step": 1}, keep=1)
        if not _killed_at(boundary, folder):
            break
        kills += 1
        newest = checkpoint.newest_checkpoint(folder)
        assert newest is not None
        groups, state = checkpoint.load(newest)
        assert groups["weights"]["w"].tolist() == [state["step"]] * 3
        found[newest.name] += 1
        checkpoint.save(folder, 3, {"weights": {"w": torch.full((3,), 3.0)}}, {"step": 3}, keep=1)
        assert [path.name for path in folder.iterdir()] == ["step-000003"]
    assert kills > 15
    assert min(found["step-000001"], found["step-000002"]) > 2


# --- what cannot be gone on from -----------------------------------------------------------------------


def test_no_checkpoint_that_is_whole(recipe_file: Path, tmp_path: Path) -> None:
    """Fault 8 and fault 9: a run whose every checkpoint is damaged does not start afresh in silence."""
    folder = tmp_path / "run"
    _finetune(recipe_file, folder)
    places = sorted((folder / "checkpoints").iterdir())
    assert len(places) == 3
    for place in places:
        (place / "state.json").unlink()
    with pytest.raises(ModelError) as caught:
        _finetune(recipe_file, folder, resume=True)
    assert str(caught.value) == (
        f"--resume: none of the 3 checkpoints in {folder}/checkpoints is complete; remove that folder to start "
        "from the first step"
    )
    assert caught.value.code == 4


def test_another_base_is_refused(recipe_file: Path, tmp_path: Path) -> None:
    """Fault 10: weights of another revision, under the same name."""
    base, folder = tiny_clip(tmp_path / "base"), tmp_path / "run"
    said = [f"base.path={base}"]
    _finetune(recipe_file, folder, *said)
    before = models_loading.load_model(base).fingerprint("all")
    tiny_clip(base, seed=5)
    after = models_loading.load_model(base).fingerprint("all")
    with pytest.raises(ModelError) as caught:
        _finetune(recipe_file, folder, *said, resume=True)
    assert str(caught.value) == (
        f"--resume: the base's weights have changed since step-{STEPS:06d} (sha256 {before[:12]}, now "
        f"{after[:12]}): start a new run"
    )


@pytest.mark.parametrize("call", ["mkdir", "write_text", "save_file", "rename"])
def test_a_folder_that_became_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """A remount after an error of the disk; whoever tests as root may write where no one else may."""
    older = checkpoint.save(tmp_path, 1, {"weights": {"w": torch.ones(1)}}, {"step": 1}, keep=1)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    owner = {"save_file": checkpoint, "rename": os}.get(call, Path)
    monkeypatch.setattr(owner, call, refuse)
    with pytest.raises(ModelError) as caught:
        checkpoint.save(tmp_path, 4, {"weights": {"w": torch.zeros(1)}}, {"step": 4}, keep=1)
    assert str(caught.value) == (
        f"{tmp_path}: cannot save step 4: Read-only file system; the last complete checkpoint is step-000001; "
        "correct that, then continue with --resume"
    )
    monkeypatch.undo()
    assert checkpoint.newest_checkpoint(tmp_path) == older


def test_a_run_folder_that_cannot_be_made(recipe_file: Path, tmp_path: Path) -> None:
    """Said before anything is trained."""
    place = tmp_path / "file"
    place.write_text("")
    with pytest.raises(RecipeError) as caught:
        _finetune(recipe_file, place / "run")
    assert str(caught.value) == f"{place}/run: cannot be written: Not a directory: name another folder"


# --- what learns, and what must not --------------------------------------------------------------------


def test_no_moment_of_a_locked_tower(recipe_file: Path, tmp_path: Path) -> None:
    """Fault 17: neither weights nor optimizer state of what is locked are in a checkpoint."""
    _finetune(recipe_file, tmp_path / "run", "strategy=locked_image")
    sides = {tuple(name.split("/")[:2]) for name in _end(tmp_path / "run")}
    assert sides == {(group, side) for group in ("weights", "optimizer") for side in ("text", "scale")}


def test_the_scale_stays_at_its_bound(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 19: pushed against ln 100 by every gradient, stopped and resumed there, and saved so."""
    plain = step.compute_gradients

    def push(*arguments: Any) -> Any:
        taken = plain(*arguments)
        arguments[1].hf_base.logit_scale.grad.fill_(-50.0)
        return taken

    monkeypatch.setattr(step, "compute_gradients", push)
    options = [f"base.path={tiny_clip(tmp_path / 'base', log_scale=4.59)}", "train.learning_rate=0.01"]
    with pytest.raises(Interrupted):
        _finetune(recipe_file, tmp_path / "run", *options, "train.time_limit=0s")
    _finetune(recipe_file, tmp_path / "run", *options, resume=True)
    _finetune(recipe_file, tmp_path / "straight", *options)
    _assert_same_end(tmp_path / "run", tmp_path / "straight")
    scale = _end(tmp_path / "run")["weights/scale/logit_scale"]
    assert scale.item() == pytest.approx(np.log(100), abs=1e-6)
    assert models_loading.load_model(tmp_path / "run" / "model").scale.item() == pytest.approx(100, rel=1e-6)


# --- compiled and autocast against eager ---------------------------------------------------------------


def _gradients(base: Path, mixed: str, device: str, compiled: bool = False) -> tuple[float, dict[str, Any]]:
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=mixed)
    torch.manual_seed(0)
    loaded = models_loading.load_model(base).to(device)
    Full().learning_rates(loaded)
    draw = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (12, *loaded.image_size, 3), dtype=torch.uint8, generator=draw).to(device)
    batch = views.StepBatch({"pixels": pixels}, None, [f"a square {i}" for i in range(12)], None,
                           MatchKeys.of_groups(torch.arange(12, device=device)), None)  # fmt: skip
    with layer_execution.layer_execution(loaded, TrainConfig(compile=compiled)):
        terms = components.WeightedObjectives({"contrastive": (1.0, Contrastive())})
        taken = step.compute_gradients(loaded, loaded, batch, terms, None, 0, accelerator)
    return taken.loss, {n: w.grad.cpu() for n, w in loaded.weights().items() if w.grad is not None}


@pytest.fixture
def _fresh_accelerator() -> Iterator[None]:
    """Accelerate keeps the first precision that a process asked for."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("_fresh_accelerator")
def test_autocast_against_plain(base: Path) -> None:
    """Fault 20: bf16 towers, fp32 logits and loss: the same loss and the same direction of the gradient."""
    from accelerate.state import AcceleratorState

    loss, plain = _gradients(base, "no", "cpu")
    AcceleratorState._reset_state(reset_partial_state=True)
    other, mixed = _gradients(base, "bf16", "cpu")
    assert other == pytest.approx(loss, rel=1e-2)
    assert other != loss  # it was really on
    assert all(grad.dtype == torch.float32 for grad in mixed.values())
    one, two = (torch.cat([grads[name].flatten() for name in plain]) for grads in (plain, mixed))
    assert torch.cosine_similarity(one, two, dim=0) > 0.99


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.usefixtures("_fresh_accelerator")
@pytest.mark.filterwarnings("default")
def test_compiled_against_eager_on_a_gpu(base: Path) -> None:
    """Fault 20, on a GPU."""
    loss, plain = _gradients(base, "no", "cuda")
    other, compiled = _gradients(base, "no", "cuda", compiled=True)
    assert other == pytest.approx(loss, abs=1e-5)
    for name, grad in plain.items():
        assert torch.allclose(compiled[name], grad, atol=1e-4), name


def test_a_batch_that_does_not_fit_is_split_at_the_first_step_and_an_error_later(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, room, steps = step.compute_gradients, 9, 0

    def limited(*arguments: Any) -> Any:
        nonlocal steps
        if (arguments[4] or BATCH) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        steps += 1
        return plain(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(step, "compute_gradients", limited)
        _finetune(recipe_file, tmp_path / "small", "probes=[zero_shot]")
    assert steps == STEPS
    _finetune(recipe_file, tmp_path / "set", "probes=[zero_shot]", f"train.micro_batch_size={BATCH // 2}")
    _assert_same_end(tmp_path / "small", tmp_path / "set")

    def fail_later(*arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == STEPS + 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(*arguments)

    monkeypatch.setattr(step, "compute_gradients", fail_later)
    with pytest.raises(ModelError, match=r"^train\.micro_batch_size: .* 16 pairs at once: set it to 8, or"):
        _finetune(recipe_file, tmp_path / "late", "probes=[zero_shot]")


# --- all of them ---------------------------------------------------------------------------------------


def test_every_number_has_a_test() -> None:
    """One to forty; a number inside prose, as of a count of faults, would not read "Fault 7"."""
    here = Path(__file__)
    found: Counter[int] = Counter()
    for file in sorted(here.parents[1].rglob("test_*.py")):
        text = file.read_text(encoding="utf-8")
        found.update(int(number) for number in re.findall(r"(?:Fault |fault |fault_)(\d+)", text))
    assert sorted(set(range(1, 41)) - set(found)) == []
