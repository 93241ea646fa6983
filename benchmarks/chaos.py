"""Kills training at every kind of moment, resumes it, and demands the weights of the run nobody touched.

    python benchmarks/chaos.py --kills 200        (make chaos)

A boundary is the moment before or after a call that changes the disk while a run is saved: a file written,
flushed or renamed, a folder removed. Each session of a run is killed at a boundary or at a step drawn by the
seed, or meets a full disk there, or finds its newest checkpoint damaged; then the run is resumed, and may be
killed again. Every run must end with the bytes of the undisturbed one.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

KINDS = {
    "full": [],
    "lora": ["strategy={lora: {rank: 2, dropout: 0.2}}", "train.micro_batch_size=5"],
    "locked image, anchor": [
        "strategy=locked_image",
        "objectives={contrastive: {}, anchor: {weight: 5}}",
        "anchor_texts={count: 32, per_step: 4}",
    ],
    "looking": ["train.validate_every=3", "train.final_weights=best", "train.keep_checkpoints=1"],
}
Command = tuple[Path, Path, list[str]]  # recipe, run folder, overrides
PATIENCE = 120  # seconds after which a session counts as hanging


class Fate:
    """What happens to a session: `kill` or `full` at its n-th boundary, or nothing."""

    def __init__(self, kind: str, at: int) -> None:
        self.kind, self.at, self.passed = kind, at, 0

    def boundary(self) -> None:
        self.passed += 1
        if self.passed != self.at:
            return
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "full":
            raise OSError(errno.ENOSPC, "No space left on device")

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*parser: Any, **options: Any) -> Any:
            self.boundary()
            result = call(*parser, **options)
            self.boundary()
            return result

        return wrapped


def _child(command: Command, resume: bool, rank: int, world: int, port: int, fate: Fate) -> None:
    """One process of a session; never returns."""
    recipe_file, folder, overrides = command
    os.environ["DOMAINCLIP_CACHE"] = str(folder.parent / "cache")
    if world > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    from domainclip.config import loading
    from domainclip.errors import DomainclipError
    from domainclip.pipelines import finetune
    from domainclip.training import step
    from domainclip.training.checkpointing import checkpoint
    from domainclip.training.run_context import RunOptions

    checkpoint.save_file = fate.around(checkpoint.save_file)
    os.rename, os.fsync = fate.around(os.rename), fate.around(os.fsync)
    shutil.rmtree = fate.around(shutil.rmtree)
    Path.write_text = fate.around(Path.write_text)  # type: ignore[method-assign]
    step.compute_gradients = fate.around(step.compute_gradients)
    errors = os.open(folder.parent / f"{folder.name}.{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    code = 1
    try:
        finetune.finetune(
            loading.load_recipe(str(recipe_file), overrides),
            RunOptions(folder=folder, resume=resume, quiet=True),
        )
        code = 0
    except DomainclipError as error:
        print(error, file=sys.stderr)
        code = int(error.code)
    except OSError as error:
        print(error, file=sys.stderr)
        code = 4
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with (folder.parent / f"{folder.name}.passed").open("w") as stream:
            stream.write(str(fate.passed))
        sys.stderr.flush()
        os._exit(code)


def _session(command: Command, resume: bool, world: int, fate: tuple[str, int]) -> list[int]:
    """Runs one session to its end; the exit code of each process, -9 for a killed one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    struck = fate[1] % world
    children = []
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            _child(command, resume, rank, world, port, Fate(*fate) if rank == struck else Fate("none", 0))
        children.append(pid)
    codes: dict[int, int] = {}
    deadline = time.monotonic() + PATIENCE
    while len(codes) < world:
        for pid in children:
            if pid not in codes and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                codes[pid] = os.waitstatus_to_exitcode(ended[1])
        if time.monotonic() > deadline:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            raise SystemExit(f"{command[1]}: a session hung")
        time.sleep(0.01)
    return [codes[pid] for pid in children]


def _damage(folder: Path, rng: random.Random) -> str | None:
    """Flips a byte of a file of the newest checkpoint, or removes it; None when one alone is left."""
    places = sorted((folder / "checkpoints").glob("step-*"))
    if len(places) < 2:
        return None
    file = rng.choice(sorted(places[-1].iterdir()))
    if rng.random() < 0.5:
        file.unlink()
        return "missing file"
    data = bytearray(file.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(bytes(data))
    return "flipped bit"


def _result(folder: Path) -> str:
    """A digest of the written model and of every logged loss."""
    whole = hashlib.sha256()
    for file in sorted((folder / "model").rglob("*.safetensors")):
        whole.update(file.read_bytes())
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        whole.update(f"{record['step']} {record.get('loss', record.get('validation'))!r}".encode())
    return whole.hexdigest()


def _one_run(
    command: Command,
    world: int,
    boundaries: int,
    rng: random.Random,
    tally: Counter[str],
) -> bool:
    """Disturbs a run until it comes to its end; whether it came there at all. Tallies what was done to it."""
    folder = command[1]
    for session in range(60):
        drawn = rng.random()
        kind = "none" if session > 8 else "kill" if drawn < 0.75 else "full" if drawn < 0.9 else "none"
        resume = (folder / "recipe.yaml").exists()
        if not resume:
            shutil.rmtree(folder, ignore_errors=True)
        codes = _session(command, resume, world, (kind, rng.randint(1, max(2, boundaries))))
        if set(codes) == {0}:
            return True
        if -signal.SIGKILL in codes:
            tally["kills"] += 1
            tally[f"kills at {world} process{'es' if world > 1 else ''}"] += 1
        elif kind == "full":
            tally["full disks"] += 1
        else:
            print(f"{folder}: unexpected exit codes {codes}: see {folder.parent}")
            return False
        if rng.random() < 0.2 and (what := _damage(folder, rng)):
            tally[what] += 1
    return False


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    place = Path(tempfile.mkdtemp(prefix="chaos-"))
    os.environ["HOME"] = str(place)
    import torch

    # Imported once: a session is a fork of this process and starts in a moment.
    pass
    from tests.conftest import RECIPE, make_corpus
    from tests.support.tiny_models import tiny_clip

    torch.set_num_threads(1)
    base, corpus = tiny_clip(place / "base"), make_corpus(place / "corpus")
    recipe_file = place / "squares.yaml"
    recipe_file.write_text(RECIPE.format(base=base, corpus=corpus), encoding="utf-8")
    rng, tally, runs, wrong = random.Random(arguments.seed), Counter[str](), Counter[str](), 0
    expected: dict[tuple[str, int], tuple[str, int]] = {}
    for name, overrides in KINDS.items():
        for world in (1, 2):
            folder = place / f"straight-{name.replace(' ', '-')}-{world}"
            if set(_session((recipe_file, folder, overrides), False, world, ("count", 0))) != {0}:
                raise SystemExit(f"the undisturbed run failed: see {place}")
            passed = int((place / f"{folder.name}.passed").read_text())
            expected[name, world] = (_result(folder), passed)
    began, number = time.monotonic(), 0
    while tally["kills"] < arguments.kills:
        number += 1
        name, world = rng.choice(sorted(expected))
        folder = place / f"run-{number}"
        done = _one_run((recipe_file, folder, KINDS[name]), world, expected[name, world][1], rng, tally)
        equal = done and _result(folder) == expected[name, world][0]
        runs[f"{name}, {world} process{'es' if world > 1 else ''}"] += 1
        if equal:
            shutil.rmtree(folder)
        else:
            wrong += 1
            print(f"WRONG: {folder} ({name}, {world})")
    print(_table(tally, runs, wrong, time.monotonic() - began))
    sys.exit(1 if wrong else 0)


def _table(tally: Counter[str], runs: Counter[str], wrong: int, seconds: float) -> str:
    lines = ["| what | times |", "|---|--:|"]
    lines += [f"| {what} | {count} |" for what, count in sorted(tally.items())]
    lines += [f"| runs: {what} | {count} |" for what, count in sorted(runs.items())]
    lines += [f"| runs that ended differently from the undisturbed one | {wrong} |"]
    return "\n".join([*lines, "", f"{seconds:.0f} s"])


if __name__ == "__main__":
    main()
