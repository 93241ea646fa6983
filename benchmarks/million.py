"""From start to the first step with many pairs: time, and private memory a process. See README.md.

    python benchmarks/million.py [--pairs 30000 100000] [--source shards|table|saved] [--phases]

Synthetic pairs (a caption of 8 words, one of 50 labels, groups of 4 items, images of 8 x 8) lie in tar
shards, in a Parquet table with the images inside, or in a data set of `save_to_disk`. Each size is started
twice: the first time with an empty cache, the second time with the same one. Of two sizes, the difference is
the growth; below 20,000 pairs, less is done on disk. Private memory is anonymous memory after the first
step, and its peak before. With a million pairs, each target is printed with its figure. Times of a busy
machine say little: `--phases` prints the processor time of each.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

HELD_OUT = 400  # items of validation, and of test, whatever the size
WORDS = ("heart", "lung", "edge", "nodule", "star", "galaxy", "spiral", "field", "river", "coast", "leaf")
SHARD = 10_000  # pairs of a tar shard, or of a row group
BATCH = 64
FIRST_START, SECOND_START, BYTES_OF_PAIR = 180, 20, 300  # wanted at most, of a million pairs


def main() -> None:
    """Make the pairs, start the processes, print a line for each size and time, and the growth."""
    options = _arguments()
    if options.worker:
        _worker(options.worker)
        return
    print("| source | pairs | first start | second | private a process | its peak | second | its peak |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for source in options.source:
        results = {pairs: _measure(source, pairs, options) for pairs in options.pairs}
        if len(results) == 2:
            _print_growth(results)


def _print_growth(results: dict[int, list[dict[str, Any]]]) -> None:
    (few, small), (many, large) = results.items()
    more = many - few
    bytes_each = [(b["private"] - a["private"]) / more for a, b in zip(small, large, strict=True)]
    peak_each = [(b["peak"] - a["peak"]) / more for a, b in zip(small, large, strict=True)]
    micros = [1e6 * (b["seconds"] - a["seconds"]) / more for a, b in zip(small, large, strict=True)]
    print(
        f"\neach further pair, first and second start: {micros[0]:.0f} and {micros[1]:.0f} µs; "
        f"{bytes_each[0]:.0f} and {bytes_each[1]:.0f} bytes of private memory a process, "
        f"{peak_each[0]:.0f} and {peak_each[1]:.0f} at the peak. Extrapolated to a million: "
        f"{small[0]['seconds'] + micros[0] * (1 - few / 1e6):.0f} and "
        f"{small[1]['seconds'] + micros[1] * (1 - few / 1e6):.0f} s\n",
        flush=True,
    )
    if many >= 10**6:
        _print_targets(few, many, small, large, max(bytes_each))


def _print_targets(
    few: int, many: int, small: list[dict[str, Any]], large: list[dict[str, Any]], bytes_each: float
) -> None:
    """A line for each target: seconds of both starts, memory of a pair, and growth that is at most linear."""
    growth = [b["seconds"] / a["seconds"] for a, b in zip(small, large, strict=True)]
    targets = (
        ("first start", large[0]["seconds"], FIRST_START, "s"),
        ("second start", large[1]["seconds"], SECOND_START, "s"),
        ("private memory of a further pair", bytes_each, BYTES_OF_PAIR, "bytes"),
        *(
            (f"growth of the {name} start from {few:,} to {many:,} pairs", one, many / few, "times")
            for name, one in zip(("first", "second"), growth, strict=True)
        ),
    )
    for name, value, limit, unit in targets:
        print(
            f"{name}: {value:.1f} {unit}, wanted at most {limit:g}: {'yes' if value <= limit else 'NO'}",
            flush=True,
        )
    print(flush=True)


def _measure(source: str, pairs: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place)
        corpus = _make_corpus(source, folder / "corpus", pairs)
        _make_base(folder / "base")
        starts = [_start(source, pairs, corpus, folder, options) for _ in range(2)]
    first, second = starts
    print(
        f"| {source} | {pairs:,} | {first['seconds']:.1f} s | {second['seconds']:.1f} s "
        f"| {_mib(first['private'])} | {_mib(first['peak'])} | {_mib(second['private'])} "
        f"| {_mib(second['peak'])} |",
        flush=True,
    )
    if options.phases:
        for number, start in enumerate(starts, start=1):
            phases = ", ".join(f"{name} {value:.1f} s" for name, value in start["phases"].items())
            processor = " and ".join(map(str, start["processor"]))
            print(f"  start {number}: {phases}; processor time {processor} s", flush=True)
    return starts


def _mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _start(
    source: str, pairs: int, corpus: Path, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Start the processes; the seconds to the end of the first step, and the largest memory of a process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shutil.rmtree(folder / "run", ignore_errors=True)
    began, running = time.time(), []
    for rank in range(options.processes):
        task = {"source": source, "corpus": str(corpus), "folder": str(folder), "began": began}
        task |= {"curation": options.curation, "pairs": pairs}
        environment = os.environ | {
            **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(options.processes)},
            **{"LOCAL_WORLD_SIZE": str(options.processes), "MASTER_ADDR": "127.0.0.1"},
            **{"MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
            **{"DOMAINCLIP_CACHE": str(folder / "cache"), "TOKENIZERS_PARALLELISM": "false"},
            **{"HF_DATASETS_CACHE": str(folder / "datasets"), "HOME": str(folder), "HF_HUB_OFFLINE": "1"},
        }
        command = [sys.executable, "-W", "ignore", __file__, "--worker", json.dumps(task)]
        running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    results = []
    for process in running:
        output = process.communicate()[0]
        if process.returncode:
            for other in running:  # it would wait for the one that failed
                other.kill()
            sys.exit(f"{source}, {pairs:,} pairs: a process failed with exit code {process.returncode}")
        results.append(json.loads(output.splitlines()[-1]))
    return {
        "seconds": max(result["seconds"] for result in results),
        "processor": [round(result["processor"], 1) for result in results],
        "private": max(result["private"] for result in results),
        "peak": max(result["peak"] for result in results),
        "phases": results[0]["phases"],
    }


class _Memory(threading.Thread):
    """Samples the private memory of this process; `peak` is the largest value so far."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0

    def run(self) -> None:
        while True:
            self.peak = max(self.peak, private_bytes())
            time.sleep(0.2)


def private_bytes() -> int:
    """Anonymous memory of this process: pages of mapped files, which processes share, are not counted."""
    status = Path("/proc/self/status").read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))
    return 1024 * int(kib)


def _worker(task: str) -> None:
    """One process: the hops of `finetune` up to the end of the first step; prints what they took as JSON."""
    request = json.loads(task)
    memory = _Memory()
    memory.start()
    from domainclip.config.recipe import Recipe
    from domainclip.pipelines.inputs import load_inputs
    from domainclip.pipelines.open_run import open_run
    from domainclip.pipelines.protocol import make_protocol
    from domainclip.pipelines.starting_point import find_starting_point
    from domainclip.pipelines.training_setup import plan_training
    from domainclip.training.run_context import RunOptions
    from domainclip.training.stages import train_in_stages

    folder, at = Path(request["folder"]), [request["began"]]
    phases: dict[str, float] = {}

    def done(name: str) -> None:
        at.append(time.time())
        phases[name] = at[-1] - at[-2]

    done("imports")
    recipe = Recipe.model_validate(_recipe(request))
    with open_run(recipe, RunOptions(folder=folder / "run", quiet=True)) as run:
        inputs = load_inputs(recipe, "train")
        done("inputs")
        protocol = make_protocol(inputs)
        start = find_starting_point(inputs, run)
        done("protocol")
        run.folder.mkdir(parents=True, exist_ok=True)
        setup = plan_training(inputs, protocol, start, run)
        done("setup")
        train_in_stages(setup, run)
        done("first step")
        private = private_bytes()
    print(
        json.dumps(
            {
                "seconds": at[-1] - request["began"],
                "processor": time.process_time(),
                "private": private,
                "peak": max(memory.peak, private),
                "phases": phases,
            }
        )
    )


def _recipe(request: dict[str, Any]) -> dict[str, Any]:
    columns = {"texts": ["caption"], "labels": "class", "group": "patient", "split": "split"}
    columns |= {} if request["source"] == "shards" else {"image": "image"}
    reader = {"shards": "webdataset", "table": "table", "saved": "hub"}[request["source"]]
    return {
        "name": "million",
        "base": {"path": str(Path(request["folder"]) / "base")},
        "corpus": {
            **{"path": request["corpus"], "reader": reader, "columns": columns, "name": "million"},
            **{"language": ["en"], "privacy": {"identifiers": "none", "burned_in_text": "no"}},
        },
        "strategy": {"lora": {}},
        "curation": json.loads(request["curation"]),
        "train": {"epochs": BATCH / request["pairs"], "batch_size": BATCH, "workers": 0, "pixel_cache_gb": 0},
        "probes": {"retrieval": {}},
    }


def _make_base(folder: Path) -> None:
    from benchmarks import bases

    bases.make_base("tiny", folder)


def _rows(pairs: int) -> Iterator[dict[str, Any]]:
    """The pairs: mostly training ones; the last items are held out."""
    import numpy as np

    draw = np.random.default_rng(0)
    for number in range(pairs):
        held_out = (pairs - 1 - number) // HELD_OUT
        split = ("test", "validation")[held_out] if held_out < 2 else "train"
        words = " ".join(WORDS[at] for at in draw.integers(len(WORDS), size=8))
        yield {
            "image": _bmp(number),
            "caption": f"{words} {number}",
            "class": f"class {number % 50}",
            "patient": f"{split} {number // 4}",
            "split": split,
        }


def _bmp(number: int) -> bytes:
    """An image of 8 x 8 with the number in its pixels: a BMP, which needs no compression."""
    from PIL import Image

    if not _HEAD:
        stream = io.BytesIO()
        Image.new("RGB", (8, 8)).save(stream, "BMP")
        _HEAD.append(stream.getvalue()[:-192])
    state = (number * 2654435761) % 2**32
    return _HEAD[0] + (number.to_bytes(4, "big") + state.to_bytes(4, "big")) * 24


_HEAD: list[bytes] = []


def _make_corpus(source: str, folder: Path, pairs: int) -> Path:
    folder.mkdir(parents=True)
    if source == "shards":
        _make_shards(folder, pairs)
        return folder
    if source == "table":
        return _make_table(folder / "metadata.parquet", pairs)
    _make_saved(folder, pairs)
    return folder


def _make_shards(folder: Path, pairs: int) -> None:
    rows = enumerate(_rows(pairs))
    for shard in range((pairs + SHARD - 1) // SHARD):
        file = folder / f"pairs-{shard:05d}.tar"
        with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as archive:
            for number, row in islice(rows, SHARD):
                image = row.pop("image")
                for suffix, data in (("bmp", image), ("json", json.dumps(row).encode())):
                    member = tarfile.TarInfo(f"{number:08d}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


def _make_table(file: Path, pairs: int) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    names = ("caption", "class", "patient", "split")
    schema = pa.schema([("image", image), *((name, pa.string()) for name in names)])
    with pq.ParquetWriter(file, schema) as writer:
        rows: list[dict[str, Any]] = []
        for number, row in enumerate(_rows(pairs), start=1):
            rows.append({**row, "image": {"bytes": row["image"], "path": None}})
            if len(rows) == SHARD or number == pairs:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows = []
    return file


def _make_saved(folder: Path, pairs: int) -> None:
    import datasets

    features = {name: datasets.Value("string") for name in ("caption", "class", "patient", "split")}
    rows = datasets.Dataset.from_generator(
        lambda: ({**row, "image": {"bytes": row["image"], "path": None}} for row in _rows(pairs)),
        features=datasets.Features({"image": datasets.Image(decode=False), **features}),
        cache_dir=str(folder / "made"),
    )
    rows.save_to_disk(str(folder))
    shutil.rmtree(folder / "made")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, nargs="+", default=[30_000, 100_000])
    parser.add_argument("--source", nargs="+", default=["shards"], choices=["shards", "table", "saved"])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--curation", default="{}", help="of the recipe, as JSON")
    parser.add_argument("--phases", action="store_true", help="print the seconds of each phase")
    parser.add_argument(
        "--folder", type=Path, help="where the pairs are made; default: the folder for temporary files"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
