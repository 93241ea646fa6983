"""Trains a tiny model for very many steps, with measuring and saving, and looks whether anything grows.

    python benchmarks/soak.py --steps 20000        (make soak)

Prints resident memory, open files and threads along the way. The last quarter must hold what the second held.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

GROWTH = 1.02  # how much more memory the last quarter may hold than the second


def _resident() -> float:
    """Megabytes of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--steps", type=int, default=20_000)
    asked = arguments.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    place = Path(tempfile.mkdtemp(prefix="soak-"))
    os.environ |= {"HOME": str(place), "DOMAINCLIP_CACHE": str(place / "cache")}
    import torch

    from domainclip.config import loading
    from domainclip.pipelines import finetune
    from domainclip.training import step
    from domainclip.training.run_context import RunOptions
    from tests.conftest import RECIPE, make_corpus
    from tests.support.tiny_models import tiny_clip

    torch.set_num_threads(1)
    base, corpus = tiny_clip(place / "base"), make_corpus(place / "corpus")
    file = place / "squares.yaml"
    file.write_text(RECIPE.format(base=base, corpus=corpus), encoding="utf-8")
    seen: list[tuple[int, float, int, int]] = []
    plain, taken, began = step.compute_gradients, 0, time.monotonic()

    def watched(*given: Any, **options: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken % max(1, asked.steps // 40) == 0:
            threads = len(list(Path("/proc/self/task").iterdir()))
            seen.append((taken, _resident(), len(os.listdir("/proc/self/fd")), threads))
        return plain(*given, **options)

    step.compute_gradients = watched
    pairs, batch = 40, 8
    overrides = [
        f"train.epochs={asked.steps * batch / pairs}",
        f"train.batch_size={batch}",
        "train.save_every=500",
        "train.validate_every=200",
        "strategy={lora: {rank: 2, dropout: 0.1}}",
        "objectives={contrastive: {}, anchor: {weight: 5}}",
        "anchor_texts={count: 32, per_step: 4}",
    ]
    finetune.finetune(loading.load_recipe(str(file), overrides), RunOptions(folder=place / "run", quiet=True))
    print("| step | resident MB | open files | threads |\n|--:|--:|--:|--:|")
    for at, resident, files, threads in seen[:: max(1, len(seen) // 10)]:
        print(f"| {at} | {resident:.1f} | {files} | {threads} |")
    quarter = len(seen) // 4
    second = max(line[1] for line in seen[quarter : 2 * quarter])
    last = max(line[1] for line in seen[-quarter:])
    handles = max(line[2] for line in seen[-quarter:]) - max(line[2] for line in seen[quarter : 2 * quarter])
    print(
        f"\n{taken} steps in {time.monotonic() - began:.0f} s; last quarter / second quarter: "
        f"memory {last / second:.3f}, open files {handles:+d}"
    )
    sys.exit(0 if last <= GROWTH * second and handles <= 0 else 1)


if __name__ == "__main__":
    main()
