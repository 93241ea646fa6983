"""Every DICOM file at hand, decoded equal to pydicom's own pipeline or refused with a reason: the table.

    make dicom-table

Files: those in pydicom's own wheel, and those under $DOMAINCLIP_SHARED/corpora/medical/dicom where they are.
The tables are written into docs/guide/dicom.md, between markers; of the second set, nothing but counts.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
from pydicom.dataset import FileDataset
from pydicom.pixels import apply_color_lut, apply_icc_profile, apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import JPEGExtended12Bit, JPEGLossless

from domainclip.data.dicom import attributes, reading, rendering
from domainclip.data.dicom.reading import read_dicom
from domainclip.data.dicom.transfer_syntaxes import stated_syntax, syntax_name
from domainclip.errors import UnreadableImage

PAGE = Path(__file__).parent.parent / "docs" / "guide" / "dicom.md"
EQUAL, DIFFERENT = "equal", "different"
_MAX = 10**9


@dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    syntax: str
    photometric: str
    result: str  # "equal", "different", or why it was refused


def wheel() -> list[Path]:
    """The DICOM files in pydicom's wheel, by suffix or by content."""
    return _dicoms(Path(pydicom.data.__file__).parent)


def shared() -> list[Path]:
    """Public files beside this repository, when they are there."""
    return _dicoms(Path(os.environ.get("DOMAINCLIP_SHARED", "../shared")) / "corpora" / "medical" / "dicom")


def _dicoms(root: Path) -> list[Path]:
    files = [file for file in sorted(root.rglob("*")) if file.is_file()]
    return [f for f in files if f.suffix == ".dcm" or reading.is_dicom(f.read_bytes()[:132])]


def outcome(file: Path) -> Outcome:
    """Decodes one file both ways."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        syntax, photometric = _kind(file)
        try:
            ours = np.asarray(rendering.render_image(file.read_bytes(), str(file), _MAX))
        except UnreadableImage as error:
            return Outcome(syntax, photometric, error.reason)
        reference = pydicom.dcmread(file)
        if not attributes.integer(reference, "NumberOfFrames"):  # pydicom refuses a text
            reference.NumberOfFrames = 1
        theirs = pydicoms(reference)
    theirs = theirs if theirs.ndim == 3 else np.repeat(theirs[..., None], 3, axis=-1)
    return Outcome(syntax, photometric, EQUAL if np.array_equal(ours, theirs) else DIFFERENT)


def _kind(file: Path) -> tuple[str, str]:
    try:
        header = read_dicom(file, str(file), ["PhotometricInterpretation"])
    except UnreadableImage:
        return "none given", "none"
    return syntax_name(stated_syntax(header)), str(header.get("PhotometricInterpretation") or "none")


def pydicoms(dataset: FileDataset) -> np.ndarray:
    """pydicom's pipeline for the first frame: pixel_array, modality LUT, VOI LUT, inversion, 8 bits."""
    if dataset.file_meta.TransferSyntaxUID == JPEGExtended12Bit and dataset.BitsStored > 8:
        # pydicom refuses 12 bits by the name; under that of JPEG Lossless its GDCM plugin reads the stream.
        dataset.file_meta.TransferSyntaxUID = JPEGLossless
    stored = pixel_array(dataset, index=0)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)[..., :3]
        return _bytes(stored, 0, np.iinfo(stored.dtype).max)
    if stored.ndim == 3:
        shown = _bytes(stored, 0, 2.0**dataset.BitsStored - 1)
        return apply_icc_profile(shown, dataset) if dataset.get("ICCProfile") else shown
    values = apply_modality_lut(stored, dataset)
    padding = _padding(stored, dataset)
    if (
        not dataset.get("WindowWidth")
        and not dataset.get("VOILUTSequence")
        and dataset.get("Modality") == "CT"
    ):
        dataset.WindowCenter, dataset.WindowWidth = 100, 2500  # what we show of a CT that does not say
    low, high = _ends(values[~padding], dataset)
    shown = apply_voi_lut(values, dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = low + (high - shown.astype(np.float64))
    shown = _bytes(shown, low, high)
    shown[padding] = 0
    return shown


def _padding(stored: np.ndarray, dataset: FileDataset) -> np.ndarray:
    value = dataset.get("PixelPaddingValue")
    limit = dataset.get("PixelPaddingRangeLimit", value)
    if value is None:
        return np.zeros(stored.shape, bool)
    inside: np.ndarray = (stored >= min(value, limit)) & (stored <= max(value, limit))
    return inside


def _ends(values: np.ndarray, dataset: FileDataset) -> tuple[float, float]:
    """What becomes black and white: all that the transform can give, or without one the range of values."""
    if dataset.get("VOILUTSequence"):
        return 0, 2.0 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
    if dataset.get("WindowWidth"):
        with np.errstate(over="ignore"):
            low, high = apply_voi_lut(np.array([-1e30, 1e30]), dataset)
        return float(low), float(high)
    full = 2.0**dataset.BitsStored - 1
    low, high = float(values.min()), float(values.max())
    return (0, full) if low >= 0 and high <= full <= 255 else (low, high)


def _bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    shares = (values.astype(np.float64) - low) / max(high - low, np.finfo(float).tiny)
    # Halves go up; what rounding put a little below one is a half.
    return np.floor(np.clip(shares, 0, 1) * 255 + (0.5 + 1e-6)).astype(np.uint8)


def tables(outcomes: Sequence[Outcome]) -> str:
    """Three Markdown tables of counts."""
    refused = [one for one in outcomes if one.result not in (EQUAL, DIFFERENT)]
    done = [one for one in outcomes if one.result in (EQUAL, DIFFERENT)]
    lines = ["| transfer syntax | files | equal | different | refused |", "|---|--:|--:|--:|--:|"]
    for syntax, n in _counted(one.syntax for one in outcomes):
        own = Counter(one.result for one in outcomes if one.syntax == syntax)
        lines.append(
            f"| {syntax} | {n} | {own[EQUAL]} | {own[DIFFERENT]} | {n - own[EQUAL] - own[DIFFERENT]} |"
        )
    total = Counter(one.result for one in done)
    lines += [f"| **all** | {len(outcomes)} | {total[EQUAL]} | {total[DIFFERENT]} | {len(refused)} |", ""]
    lines += ["| refused because | files |", "|---|--:|"]
    lines += [f"| {reason} | {n} |" for reason, n in _counted(one.result for one in refused)] or ["| – | 0 |"]
    lines += ["", "| colour model of what was decoded | files |", "|---|--:|"]
    lines += [f"| {model} | {n} |" for model, n in _counted(one.photometric for one in done)]
    return "\n".join(lines)


def _counted(words: object) -> list[tuple[str, int]]:
    return sorted(Counter(words).items(), key=lambda pair: (-pair[1], pair[0]))  # type: ignore[call-overload]


def between(page: str, name: str, text: str) -> str:
    """The page with another text between two markers."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, rest = page.split(begin)
    return f"{head}{begin}\n{text}\n{end}{rest.split(end)[1]}"


def main() -> int:
    """Prints the tables and writes them into the page; the exit code says whether a file differs."""
    page, wrong = PAGE.read_text(encoding="utf-8"), 0
    for name, files in (("wheel", wheel()), ("shared", shared())):
        outcomes = [outcome(file) for file in files]
        if not outcomes:
            continue
        wrong += sum(one.result == DIFFERENT for one in outcomes)
        page = between(page, name, tables(outcomes))
        print(f"{name}\n\n{tables(outcomes)}\n")
    PAGE.write_text(page, encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
