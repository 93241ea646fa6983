"""DICOM files of several kinds, in which one element or some bytes are changed."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pydicom
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from tests.data.made_corpora import dicom_file
from tests.data.made_dicom import (
    colour_file,
    container,
    encapsulated,
    item,
    report_file,
    table_item,
    text_item,
)
from tests.fuzz.oracle import CANARY
from tests.fuzz.tables import edited_bytes

_PEOPLE = {
    "PatientName": CANARY,
    "PatientID": CANARY,
    "PatientBirthDate": "19470312",
    "StudyDescription": CANARY,
}
_PEOPLE |= {"PatientAge": "065Y", "PatientSex": "F", "ImageComments": CANARY, "InstitutionName": CANARY}
_WINDOW = {
    "WindowCenter": [40, 400],
    "WindowWidth": [400, 1500],
    "WindowCenterWidthExplanation": [CANARY, "LUNG"],
}
_WINDOW |= {"RescaleSlope": "1", "RescaleIntercept": "-1024", "RescaleType": "HU"}


@cache
def samples() -> dict[str, bytes]:
    """One small file of each kind, with the secret in its texts."""
    noise = np.random.default_rng(0)
    grey = noise.integers(0, 4096, (12, 16), np.uint16)
    colour = noise.integers(0, 256, (12, 16, 3), np.uint8)
    with TemporaryDirectory() as folder:
        at = Path(folder)
        plain = dicom_file(at / "grey", grey, **_PEOPLE, **_WINDOW)
        signed = (noise.integers(-2048, 2048, (12, 16), np.int16)).astype(np.int16)
        tables = {
            "ModalityLUTSequence": [table_item(0, 16, list(range(64)))],
            "VOILUTSequence": [table_item(0, 8, list(range(256)), LUTExplanation=CANARY)],
        }
        palette: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
        for name in ("Red", "Green", "Blue"):
            palette[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
            palette[f"{name}PaletteColorLookupTableData"] = np.arange(256, dtype="<u2").tobytes()
        jpeg = io.BytesIO()
        Image.fromarray(colour).save(jpeg, "JPEG", quality=90)
        shades = io.BytesIO()
        Image.fromarray(grey).save(shades, "JPEG2000")
        rgb = colour_file(at / "colour", colour, **_PEOPLE)
        functional = item(
            FrameVOILUTSequence=[item(WindowCenter="40", WindowWidth="400")],
            PixelValueTransformationSequence=[item(RescaleSlope="2", RescaleIntercept="0", RescaleType="HU")],
        )
        frames = np.stack([grey, grey])
        files = {
            "grey": plain,
            "signed": dicom_file(
                at / "signed", signed, PixelRepresentation=1, PixelPaddingValue=-2048, **_PEOPLE
            ),
            "inverse": dicom_file(
                at / "inverse",
                grey,
                PhotometricInterpretation="MONOCHROME1",
                PresentationLUTShape="INVERSE",
                **_PEOPLE,
            ),
            "tables": dicom_file(at / "tables", grey, **tables, **_PEOPLE),
            "colour": rgb,
            "planes": dicom_file(
                at / "planes",
                np.moveaxis(colour, 2, 0).copy().reshape(12, 48)[:, :16].copy(),
                SamplesPerPixel=1,
                **_PEOPLE,
            ),
            "ybr": colour_file(
                at / "ybr", colour, PhotometricInterpretation="YBR_FULL", PlanarConfiguration=1, **_PEOPLE
            ),
            "palette": dicom_file(at / "palette", colour[..., 0].copy(), **palette, **_PEOPLE),
            "frames": dicom_file(
                at / "frames",
                frames.reshape(24, 16),
                NumberOfFrames=2,
                Rows=12,
                SharedFunctionalGroupsSequence=[functional],
                **_PEOPLE,
            ),
            "jpeg": encapsulated(
                at / "jpeg",
                rgb,
                UID("1.2.840.10008.1.2.4.50"),
                [jpeg.getvalue()],
                PhotometricInterpretation="YBR_FULL_422",
            ),
            "jpeg 2000": encapsulated(
                at / "j2k",
                plain,
                UID("1.2.840.10008.1.2.4.90"),
                [shades.getvalue()],
                BitsStored=16,
                HighBit=15,
            ),
            "report": report_file(
                at / "report", "1.2.3", container("Findings", text_item("Finding", CANARY)), **_PEOPLE
            ),
        }
        dataset = pydicom.dcmread(plain)
        dataset.compress(RLELossless)
        dataset.save_as(at / "rle")
        files["rle"] = at / "rle"
        for name, syntax in (
            ("implicit", ImplicitVRLittleEndian),
            ("deflated", DeflatedExplicitVRLittleEndian),
        ):
            dataset = pydicom.dcmread(plain)
            dataset.file_meta.TransferSyntaxUID = syntax
            pydicom.dcmwrite(at / name, dataset, implicit_vr=syntax.is_implicit_VR, little_endian=True)
            files[name] = at / name
        return {name: file.read_bytes() for name, file in files.items()}


@dataclass(frozen=True)
class Changed:
    """A file with a change, in words."""

    kind: str
    change: str
    data: bytes

    def __repr__(self) -> str:
        return f"{self.kind}: {self.change}"


_VRS = [
    b"US",
    b"SS",
    b"UL",
    b"DS",
    b"IS",
    b"CS",
    b"LO",
    b"PN",
    b"OB",
    b"OW",
    b"SQ",
    b"UN",
    b"UI",
    b"UT",
    b"AT",
    b"FD",
    b"FL",
    b"DA",
    b"AS",
    b"OF",
    b"OD",
    b"ZZ",
    b"\0\0",
    b"us",
    b"UC",
    b"SV",
]
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_TEXTS = [
    *(
        "",
        " ",
        "0",
        "1",
        "-1",
        "2",
        "1,5",
        "1.5",
        "1e400",
        "NaN",
        "inf",
        "-inf",
        "NORMAL",
        "1\\2",
        "\\",
        "1\\",
        "0\\0",
        "99999999999",
        "0x10",
    ),
    *(
        CANARY,
        f"{CANARY}^A=B",
        "é",
        "\\".join(["1"] * 300),
        "x" * 70000,
        "\0",
        "LINEAR",
        "SIGMOID",
        "LINEAR_EXACT\\SIGMOID",
        "ISO_IR 192",
        "GB18030",
        "ISO 2022 IR 87",
    ),
    *(
        "MONOCHROME1",
        "MONOCHROME2",
        "RGB",
        "YBR_FULL",
        "YBR_RCT",
        "PALETTE COLOR",
        "ARGB",
        "YES",
        "065Y",
        "012M",
        "19470312",
    ),
    *(
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.2.1.99",
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.4.57",
    ),
    *(
        "1.2.840.10008.1.2.4.70",
        "1.2.840.10008.1.2.4.80",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.4.201",
        "1.2.840.10008.1.2.5",
        "1.2.840.10008.1.2.4.100",
        "1.2.840.10008.1.2.4.110",
    ),
]
_VALUES = st.one_of(
    st.sampled_from(_TEXTS).map(lambda text: text.encode("latin-1", "replace")),
    st.sampled_from([0, 1, 2, 3, 7, 8, 12, 15, 16, 17, 32, 64, 255, 256, 32768, 65535]).map(
        lambda number: struct.pack("<H", number)
    ),
    st.sampled_from([0, 1, 2**31, 2**32 - 1]).map(lambda number: struct.pack("<I", number)),
    st.sampled_from(
        [
            struct.pack("<d", float("nan")),
            struct.pack("<f", float("inf")),
            b"\xff\xfe\x00\xe0\0\0\0\0",
            b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
        ]
    ),
    st.lists(st.sampled_from([0, 1, 8, 16, 256, 65535]), max_size=4).map(
        lambda numbers: struct.pack(f"<{len(numbers)}H", *numbers)
    ),
    st.binary(max_size=6),
)
_DISPLAY = [
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "NumberOfFrames",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "PresentationLUTShape",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "SmallestImagePixelValue",
    "PixelAspectRatio",
    "SpecificCharacterSet",
    "PixelData",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "ICCProfile",
    "RedPaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "TransferSyntaxUID",
    "SOPClassUID",
    "Modality",
    "StudyInstanceUID",
    "PatientID",
    "PatientAge",
    "LossyImageCompression",
    "BurnedInAnnotation",
    "SegmentedRedPaletteColorLookupTableData",
    "ExtendedOffsetTable",
    "PixelSpacing",
]


def _elements(data: bytes) -> list[tuple[int, int, int, int]]:
    """Tag, start, start of the value and end of each element of an explicit little-endian file."""
    found, at = [], 132
    while at + 8 <= len(data):
        group, number = struct.unpack("<HH", data[at : at + 4])
        vr = data[at + 4 : at + 6]
        long = vr in _LONG
        size = (
            struct.unpack("<I", data[at + 8 : at + 12])[0]
            if long
            else struct.unpack("<H", data[at + 6 : at + 8])[0]
        )
        value = at + (12 if long else 8)
        end = len(data) if size == 0xFFFFFFFF else value + size
        found.append((group << 16 | number, at, value, end))
        at = end
    return found


def _encoded(tag: int, vr: bytes, value: bytes, size: int | None = None) -> bytes:
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    size = len(value) if size is None else size
    if vr in _LONG:
        return head + b"\0\0" + struct.pack("<I", size % 2**32) + value
    return head + struct.pack("<H", size % 2**16) + value


_EXPLICIT = [
    "grey",
    "signed",
    "inverse",
    "tables",
    "colour",
    "ybr",
    "palette",
    "frames",
    "jpeg",
    "jpeg 2000",
    "rle",
    "report",
]


@st.composite
def _element_changed(draw: st.DrawFn) -> Changed:
    kind = draw(st.sampled_from(_EXPLICIT))
    data = samples()[kind]
    elements = _elements(data)
    tag, start, value_at, end = draw(st.sampled_from(elements))
    vr, value = data[start + 4 : start + 6], data[value_at:end]
    name = pydicom.datadict.keyword_for_tag(tag) or f"{tag:08x}"
    match draw(st.integers(0, 9)):
        case 0:
            return Changed(kind, f"{name} left out", data[:start] + data[end:])
        case 1:
            other = draw(st.sampled_from(_VRS))
            return Changed(
                kind, f"{name} as {other!r}", data[:start] + _encoded(tag, other, value) + data[end:]
            )
        case 2:
            size = draw(
                st.sampled_from([0, 1, len(value) - 1, len(value) + 2, 0xFFFF, 0xFFFFFFFF, 2**31, 0xFFFE])
            )
            return Changed(
                kind, f"{name} with length {size}", data[:start] + _encoded(tag, vr, value, size) + data[end:]
            )
        case 3:
            return Changed(kind, f"{name} twice", data[:end] + data[start:end] + data[end:])
        case 4:
            cut = draw(st.integers(0, len(data)))
            return Changed(kind, f"cut at {cut}", data[:cut])
        case 5 | 6:
            word = draw(st.sampled_from(_DISPLAY))
            new_tag = pydicom.datadict.tag_for_keyword(word)
            assert new_tag is not None
            new_vr = (
                draw(st.sampled_from(_VRS))
                if draw(st.booleans())
                else pydicom.datadict.dictionary_VR(new_tag)[:2].encode()
            )
            new = draw(_VALUES)
            place = next((e for e in elements if e[0] == new_tag), None)
            after = next((e for e in elements if e[0] > new_tag), elements[-1])
            begin, stop = (place[1], place[3]) if place else (after[1], after[1])
            return Changed(
                kind,
                f"{word} {new_vr!r} {_short(new)}",
                data[:begin] + _encoded(int(new_tag), new_vr, new) + data[stop:],
            )
        case _:
            new = draw(_VALUES)
            return Changed(
                kind, f"{name} {vr!r} {_short(new)}", data[:start] + _encoded(tag, vr, new) + data[end:]
            )


def _short(value: bytes) -> str:
    return repr(value if len(value) < 80 else value[:60] + b"...")


@st.composite
def _bytes_changed(draw: st.DrawFn) -> Changed:
    kind = draw(st.sampled_from(sorted(samples())))
    data = draw(edited_bytes(samples()[kind]))
    return Changed(kind, f"bytes {data!r}", data)


@st.composite
def _header_lost(draw: st.DrawFn) -> Changed:
    """Without preamble or meta information, as some archives export files."""
    kind = draw(st.sampled_from(_EXPLICIT))
    data = samples()[kind]
    body = next(start for tag, start, _, _ in _elements(data) if tag >> 16 > 2)
    forms: list[tuple[str, Callable[[], bytes]]] = [
        ("no preamble", lambda: data[132:]),
        ("no meta information", lambda: data[body:]),
        ("preamble, no meta information", lambda: data[:132] + data[body:]),
        ("zeros", lambda: b"\0" * len(data)),
        ("preamble only", lambda: data[:132]),
        ("bytes before it", lambda: b"\0" * 7 + data),
    ]
    name, make = draw(st.sampled_from(forms))
    return Changed(kind, name, make())


BROKEN = st.one_of(
    _element_changed(), _element_changed(), _element_changed(), _bytes_changed(), _header_lost()
)
