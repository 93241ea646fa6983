"""Private memory of each process of a sharded run, phase by phase. See README.md.

    python benchmarks/sharding.py [--processes 2] [--strategy full] [--model wide] [--set train.fsdp=false]

A whole run of `finetune` on a tiny corpus. Private memory is anonymous memory, without what a process has
before it loads the base; pages of a mapped file, which the processes of a machine share, are not counted. It
is printed as a multiple of the weights of the base: at the end of each phase, and the most within it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.million import private_bytes

# What a run does, in this order: the function that ends a phase, by the module that calls it.
PHASES = {
    "base loaded": ("domainclip.pipelines.finetune", "load_inputs"),
    "base measured": ("domainclip.pipelines.finetune", "measure_baseline"),
    "setup": ("domainclip.pipelines.finetune", "plan_training"),
    "sharded": ("domainclip.training.fsdp", "shard"),
    "last step": ("domainclip.training.step", "compute_gradients"),
    "trained": ("domainclip.pipelines.finetune", "train_in_stages"),
    "α chosen": ("domainclip.pipelines.finetune", "interpolate_weights"),
    "saved": ("domainclip.pipelines.finetune", "save_adapted_model"),
    "base loaded again": ("domainclip.pipelines.finetune", "reload_base"),
    "evaluated": ("domainclip.pipelines.finetune", "evaluate_pair"),
}


class _Memory(threading.Thread):
    """Samples the private memory of this process; `peak` is the largest value since the last phase ended."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = private_bytes()
        self.peak = 0
        self.phases: dict[str, tuple[int, int]] = {}

    def run(self) -> None:
        while True:
            self.peak = max(self.peak, private_bytes() - self.before)
            threading.Event().wait(0.02)

    def end(self, phase: str) -> None:
        """Record the phase: its end, and the most within it; of several of its kind, the last one."""
        now = private_bytes() - self.before
        self.phases[phase] = (now, max(now, self.peak))
        self.peak = 0


def _watched(memory: _Memory, phase: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def run(*given: Any, **options: Any) -> Any:
        result = call(*given, **options)
        memory.end(phase)
        return result

    return run


def _work(recipe: Path, folder: Path, changes: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """One process: the run, and the end and peak of each of its phases in bytes."""
    import importlib

    from domainclip.config import loading
    from domainclip.pipelines import finetune
    from domainclip.training.run_context import RunOptions

    memory = _Memory()
    memory.start()
    for phase, (module_name, name) in PHASES.items():
        module = importlib.import_module(module_name)
        setattr(module, name, _watched(memory, phase, getattr(module, name)))
    finetune.finetune(loading.load_recipe(str(recipe), list(changes)), RunOptions(folder=folder, quiet=True))
    return memory.phases


def main() -> None:
    """Start the processes; print a line for each phase."""
    options = _arguments()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ |= {"HOME": place, "DOMAINCLIP_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
        os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        from benchmarks import bases
        from tests.conftest import RECIPE, make_corpus
        from tests.support.processes import started

        bases.make_base(options.model, folder / "base")
        weights = (folder / "base" / "model.safetensors").stat().st_size
        file = folder / "squares.yaml"
        recipe = RECIPE.format(base=folder / "base", corpus=make_corpus(folder / "corpus"))
        file.write_text(recipe, encoding="utf-8")
        changes = ["train.fsdp=true", "train.epochs=1", "train.validate_every=2", "train.workers=0"]
        changes += [f"strategy={options.strategy}", "weight_interpolation={alphas: [0.5, 1.0]}", *options.set]
        results = started(options.processes, folder, _work, file, folder / "run", tuple(changes))
    print(f"{options.model}, {weights / 2**20:,.0f} MiB of weights, {options.processes} processes, ", end="")
    print(f"{options.strategy}\n\n| phase | its end | its peak |\n|---|--:|--:|")
    for phase in PHASES:
        if phase in results[0]:
            ends, peaks = zip(*(each[phase] for each in results), strict=True)
            print(f"| {phase} | {_shares(ends, weights)} | {_shares(peaks, weights)} |")


def _shares(sizes: tuple[int, ...], weights: int) -> str:
    return ", ".join(f"{size / weights:.2f}" for size in sizes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--strategy", default="full")
    parser.add_argument("--model", default="wide")
    parser.add_argument("--set", nargs="*", default=[], help="further settings of the recipe")
    return parser.parse_args()


if __name__ == "__main__":
    main()
