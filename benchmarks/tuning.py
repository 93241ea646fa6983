"""`domainclip tune` on paintings, from a recipe that names strategy and loss alone; 40 minutes, two cores.

    python benchmarks/tuning.py [--budget 38m] [--run-dir build/tuning]

The recipe is what anyone would begin with: LoRA with its defaults, the contrastive loss, no anchor. Corpora
and weights are not part of the project: DOMAINCLIP_SHARED names the folder that holds them (default
../shared). To compare: the built-in recipe in docs/results/ablations.md, which was tuned by hand. The cache
is empty at the start. The same command continues a search that was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

SHARED = Path(os.environ.get("DOMAINCLIP_SHARED", "../shared")).resolve()  # as the recipe lies elsewhere
_RECIPE = """\
name: generic
base: {base}
corpus: {{card: art_paintings, path: {corpus}}}
strategy: lora
objectives: {{contrastive: {{}}}}
probes: {{zero_shot: {{}}, retrieval: {{}}}}
"""
FIGURES = [
    ("zero_shot", "test", "accuracy"),
    ("zero_shot", "test", "macro_accuracy"),
    ("retrieval", "test", "image_to_text_r1"),
    ("retrieval", "test", "text_to_image_r1"),
    ("zero_shot", "general", "accuracy"),
    ("retrieval", "general", "image_to_text_r1"),
    ("retrieval", "general", "text_to_image_r1"),
]


def main() -> None:
    """Print the choice, the minutes, and the mean over the seeds on the test split."""
    parser = argparse.ArgumentParser(description="tune on paintings from generic defaults")
    parser.add_argument("--budget", default="38m")
    parser.add_argument("--run-dir", type=Path, default=Path("build/tuning"))
    arguments = parser.parse_args()
    arguments.run_dir.mkdir(parents=True, exist_ok=True)
    recipe = arguments.run_dir / "generic.yaml"
    recipe.write_text(_RECIPE.format(base=SHARED / "weights/vit-tiny-clip", corpus=SHARED / "corpora/art"))
    command = [sys.executable, "-m", "domainclip", "tune", "--recipe", str(recipe)]
    command += ["--budget", arguments.budget, "--run-dir", str(arguments.run_dir / "search")]
    with tempfile.TemporaryDirectory() as cache:
        begun = time.monotonic()
        subprocess.run(command, check=True, env=os.environ | {"DOMAINCLIP_CACHE": cache})
        minutes = (time.monotonic() - begun) / 60
    found = json.loads((arguments.run_dir / "search" / "tuning.json").read_text(encoding="utf-8"))
    chosen = next(trial for trial in found["trials"] if trial["number"] == found["chosen"])
    print(f"{minutes:.0f} minutes, {len(found['trials'])} trials; chosen: {'; '.join(chosen['overrides'])}")
    runs = sorted((arguments.run_dir / "search" / "final").glob("seed-*/results.json"))
    for line in figures([json.loads(run.read_text(encoding="utf-8"))["results"] for run in runs]):
        print(line)


def figures(of_runs: Sequence[Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """A line for each figure: the base, the mean over the runs, and that of each run."""
    for figure in FIGURES:
        rows = [r for run in of_runs for r in run if (r["probe"], r["dataset"], r["metric"]) == figure]
        base, values = rows[0]["base"]["value"], [row["adapted"]["value"] for row in rows]
        each = ", ".join(f"{value:.3f}" for value in values)
        yield f"{' '.join(figure)}: {base:.3f} → {fmean(values):.3f} ({fmean(values) - base:+.3f}; {each})"


if __name__ == "__main__":
    main()
