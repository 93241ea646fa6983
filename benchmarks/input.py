"""Preparing and loading images: DICOM files by one process and two, JPEG files beside Pillow, a slow model.

    python benchmarks/input.py                    # some minutes; numbers count on a quiet machine only
    python benchmarks/input.py --files 12 --jpegs 40 --rounds 1

Both sides of a ratio are measured in turn, in one run. Everything is made on the fly.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

SIZE = 224


def radiograph(rows: int, columns: int, seed: int) -> np.ndarray:
    """Smooth shadows with a detector's noise, 12 bits: compresses like a picture, not like noise."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(300, 3500, (12, 10)).astype(np.float32))
    smooth = np.asarray(coarse.resize((columns, rows), Image.Resampling.BICUBIC))
    return np.clip(smooth + draw.normal(0, 8, (rows, columns)), 0, 4095).astype(np.uint16)


def make_dicoms(folder: Path, files: int, rows: int = 3000, columns: int = 2500) -> Path:
    """A table and DICOM files: as they are, RLE and deflated in turn."""
    folder.mkdir()
    lines = ["file_name,text,split"]
    for number in range(files):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        syntaxes = (ExplicitVRLittleEndian, RLELossless, DeflatedExplicitVRLittleEndian)
        syntax = syntaxes[number % len(syntaxes)]
        meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == RLELossless else syntax
        name = folder / f"{number:03d}.dcm"
        dataset = FileDataset(str(name), {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID = meta.MediaStorageSOPClassUID
        dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        dataset.Modality, dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "CR", "MONOCHROME2", 1
        dataset.Rows, dataset.Columns = rows, columns
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = (
            16,
            12,
            11,
            0,
        )
        dataset.WindowCenter, dataset.WindowWidth = 1900, 3000
        dataset.PixelData = radiograph(rows, columns, number).tobytes()
        dataset["PixelData"].VR = "OW"
        if syntax == RLELossless:
            dataset.compress(RLELossless)
        pydicom.dcmwrite(name, dataset, enforce_file_format=True)
        lines.append(f"{name.name},film {number},train")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def make_jpegs(folder: Path, files: int) -> list[Path]:
    """Photographs of 1600 by 1200 pixels."""
    folder.mkdir()
    found = []
    for number in range(files):
        bands = [radiograph(1200, 1600, 3 * number + band) // 16 for band in range(3)]
        found.append(folder / f"{number:03d}.jpg")
        Image.fromarray(np.stack(bands, axis=-1).astype(np.uint8)).save(found[-1], quality=90)
    return found


def seconds(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long a call takes."""
    began = clock()
    call()
    return clock() - began


def dicoms(place: Path, files: int, rounds: int) -> None:
    """Wall time with one worker and with two."""
    from domainclip.data.cards import load_card
    from domainclip.data.images.reencode import Reencoder
    from domainclip.pipelines.data_prepare import write_prepared_corpus
    from domainclip.pipelines.prepared_shards import PrepareRequest

    folder = make_dicoms(place / "dicoms", files)
    size = sum(file.stat().st_size for file in folder.iterdir())
    card = load_card(None, {"reader": "table"})
    taken: dict[int, list[float]] = {1: [], 2: []}
    for number in range(rounds):
        for workers in taken:
            out = place / f"out-{number}-{workers}"
            wanted = PrepareRequest(Reencoder(SIZE), items=8)
            call = lambda out=out, workers=workers, wanted=wanted: write_prepared_corpus(  # noqa: E731
                card, str(folder), out, wanted, workers, lambda line: None
            )
            taken[workers].append(seconds(call))
    same = {
        tuple((file.name, file.read_bytes()) for file in sorted((place / f"out-0-{workers}").iterdir()))
        for workers in taken
    }
    one, two = (median(taken[workers]) for workers in (1, 2))
    print(
        f"| data prepare, {files} DICOM files of 3000 x 2500 in 16 bits ({size / 1e6:.0f} MB; native, RLE, "
        f"deflated) | one process {one:.1f} s, two {two:.1f} s: {one / two:.2f} x; the same bytes: "
        f"{'yes' if len(same) == 1 else 'NO'} | |",
        flush=True,
    )


def jpegs(place: Path, files: int, rounds: int) -> None:
    """Preparing JPEG files on one core, against Pillow's own decode, resize and encode of the same files."""
    from domainclip.data.images.reencode import Reencoder, ShardChunk

    found = make_jpegs(place / "jpegs", files)
    shrink = Reencoder(SIZE, "jpeg")
    rows = [{"image": {"path": str(file), "bytes": None}, "views": []} for file in found]

    def ours() -> None:
        shrink.encode_chunk(ShardChunk("", rows))

    def pillow() -> None:
        for file in found:
            with Image.open(file) as opened:
                picture = opened.convert("RGB")
            short = min(picture.size)
            small = picture.resize(
                (picture.width * SIZE // short, picture.height * SIZE // short), Image.Resampling.BICUBIC
            )
            small.save(io.BytesIO(), "JPEG", quality=95, subsampling=0)

    taken: dict[str, list[float]] = {"ours": [], "pillow": []}
    for _ in range(rounds):
        # The processor's time of one thread: what else runs here does not count.
        taken["ours"].append(seconds(ours, time.thread_time))
        taken["pillow"].append(seconds(pillow, time.thread_time))
    mine, plain = (files / median(taken[name]) for name in ("ours", "pillow"))
    print(
        f"| JPEG files of 1600 x 1200 on one core | {mine:.1f} a second, Pillow alone {plain:.1f}: "
        f"{mine / plain:.2f} of its speed | |",
        flush=True,
    )


def photographs(place: Path, files: int, count: int) -> Any:
    """So many training pairs that show photographs of 1600 by 1200 pixels in turn."""
    from datasets import Dataset

    from domainclip.data.batching.pairs import Pairs
    from domainclip.data.schema import features
    from domainclip.models.image_preprocessor import ImagePreprocessor

    found = make_jpegs(place / "photographs", files)
    rows = [
        {
            "id": str(number),
            "image": {"path": str(found[number % files]), "bytes": None},
            "views": [],
            "texts": [f"photograph {number}"],
            "language": ["en"],
            "labels": [],
            "group": str(number),
            "truth": str(number),
            "meta": "{}",
        }
        for number in range(count)
    ]
    plain = (0.5, 0.5, 0.5)
    shape = ImagePreprocessor(SIZE, (SIZE, SIZE), int(Image.Resampling.BICUBIC), 1 / 255, plain, plain)
    return Pairs(Dataset.from_list(rows, features=features()), shape)


def waiting(pairs: Any, workers: int, batch: int = 64, steps: int = 12) -> float:
    """The share of a training that waits for images, with a model that is slower than their decoding.

    The model sleeps: on a GPU the host is as idle. A step takes 1.5 times as long as the workers
    need for its images when nothing else is done, so other work on the machine counts in both. Returns the
    seconds that they need for one image.
    """
    from domainclip.data.batching.loader import batches

    ahead = 4  # batches that are loaded before the first one is used
    loaded = batches(pairs, 0, steps + ahead, batch, workers=workers)
    for _ in range(ahead):
        next(loaded)
    decoding = seconds(lambda: [next(loaded) for _ in range(steps)]) / steps
    step = 1.5 * decoding
    loaded = batches(pairs, 0, steps + 1, batch, workers=workers)
    next(loaded)  # the processes start
    time.sleep(step)
    waited = 0.0
    for _ in range(steps):
        waited += seconds(lambda: next(loaded))
        time.sleep(step)
    print(
        f"| a step of {step:.2f} s on {batch} images, {workers} processes that load them in {decoding:.2f} s "
        f"| waits {waited / (waited + steps * step):.1%} of the time | <= 5 % |",
        flush=True,
    )
    return decoding / batch


def first_batch(pairs: Any, workers: int, decoding: float, batch: int = 1024) -> None:
    """The time to the first batch, the start of its workers included, against the loading of its images."""
    from domainclip.data.batching.loader import batches

    took = seconds(lambda: next(batches(pairs, 0, 1, batch, workers=workers)))
    print(
        f"| the first batch of {batch:,}, {workers} processes "
        f"| {took:.1f} s, {took / (batch * decoding):.2f} x the {batch * decoding:.1f} s to load it "
        "| <= 2 x |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--jpegs", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        os.environ["DOMAINCLIP_CACHE"] = f"{place}/cache"
        os.environ.setdefault("DOMAINCLIP_SECRET", "benchmark")
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
        print("\n| input | measured | wanted |\n|---|---|---|", flush=True)
        workers = min(2, os.cpu_count() or 1)
        pairs = photographs(Path(place), min(chosen.jpegs, 64), 16 * 64)
        first_batch(pairs, workers, waiting(pairs, workers))
        jpegs(Path(place), chosen.jpegs, chosen.rounds)
        dicoms(Path(place), chosen.files, chosen.rounds)


if __name__ == "__main__":
    main()
