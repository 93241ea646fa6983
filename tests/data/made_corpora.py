"""Small files for tests: images, tables and DICOM files."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from domainclip.data.cards import Card
from domainclip.data.corpus import Corpus, load_corpus

OPEN: dict[str, Any] = {"privacy": {"identifiers": "none"}}  # names may show in messages


def card(**keys: Any) -> Card:
    """A card named "test"; by default its names may be shown."""
    return Card.model_validate({"name": "test", **OPEN, **keys})


def noise_image(path: Path, seed: int = 0, size: tuple[int, int] = (8, 6)) -> Path:
    """An image of noise, different for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def table(folder: Path, rows: list[dict[str, Any]], name: str = "metadata.csv", images: bool = True) -> Path:
    """A CSV file, with an image of noise for each `file_name`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    if images:
        for seed, row in enumerate(rows):
            noise_image(folder / row["file_name"], seed)
    return folder / name


def dicom_file(path: Path, stored: np.ndarray | None, **attributes: Any) -> Path:
    """A DICOM file of unsigned or signed stored values (12 of 16 bits, or 8), as explicit little endian."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    dataset.Modality, dataset.StudyInstanceUID = "CR", generate_uid()
    if stored is not None:
        bits = stored.dtype.itemsize * 8
        dataset.Rows, dataset.Columns = stored.shape[:2]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored = bits, 12 if bits == 16 else bits
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelRepresentation = int(stored.dtype.kind == "i")
        dataset.PixelData = stored.tobytes()
        dataset["PixelData"].VR = "OW" if bits == 16 else "OB"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def corpus_with_held_out(folder: Path) -> Corpus:
    """A corpus of images and captions 0 to 3, of which 2 is for validation and 3 for testing."""
    splits = ("train", "train", "validation", "test")
    rows = [
        {"file_name": f"{i}.png", "text": f"caption {i}", "group": f"g{i}", "split": split}
        for i, split in enumerate(splits)
    ]
    columns = {"image": "file_name", "texts": ["text"], "group": "group", "split": "split"}
    return load_corpus(card(columns=columns), str(table(folder, rows)))
