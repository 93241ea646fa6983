"""FITS files of several kinds, in which one card of a header or some bytes are changed."""

from __future__ import annotations

import gzip
import io
from functools import cache

import astropy.io.fits as fits
import numpy as np
from hypothesis import strategies as st

from tests.fuzz.oracle import CANARY
from tests.fuzz.tables import edited_bytes

_CARD, _BLOCK = 80, 2880


@cache
def samples() -> dict[str, bytes]:
    """One small file of each kind, with the secret in its header."""
    noise = np.random.default_rng(0)
    floats = noise.normal(100, 20, (12, 16)).astype(np.float32)
    ints = noise.integers(-300, 300, (12, 16)).astype(np.int16)
    cube = np.stack([floats, floats * 2, floats + 5])
    unsigned = noise.integers(0, 65535, (12, 16)).astype(np.uint16)
    table = fits.BinTableHDU.from_columns([fits.Column("name", "10A", array=[CANARY])], name="CAT")
    first = fits.PrimaryHDU()
    first.header["OBJECT"] = CANARY
    several = fits.HDUList(
        [first, fits.ImageHDU(floats, name="SCI"), fits.ImageHDU(floats, name="WHT"), table]
    )
    return {
        "floats": _saved(fits.PrimaryHDU(floats)),
        "doubles": _saved(fits.PrimaryHDU(floats.astype(np.float64))),
        "integers": _saved(fits.PrimaryHDU(ints)),
        "unsigned": _saved(fits.PrimaryHDU(unsigned)),
        "bytes": _saved(fits.PrimaryHDU(unsigned.astype(np.uint8))),
        "cube": _saved(fits.PrimaryHDU(cube)),
        "several": _saved(several),
        "compressed": _saved(fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(ints, name="SCI")])),
        "table": _saved(fits.HDUList([fits.PrimaryHDU(), table])),
        "zipped": gzip.compress(_saved(fits.PrimaryHDU(floats)), mtime=0),
    }


def _saved(content: fits.HDUList | fits.PrimaryHDU) -> bytes:
    stream = io.BytesIO()
    if isinstance(content, fits.PrimaryHDU):
        content.header["OBJECT"], content.header["OBSERVER"] = CANARY, CANARY
    content.writeto(stream)
    return stream.getvalue()


_KEYS = [
    "SIMPLE",
    "XTENSION",
    "BITPIX",
    "NAXIS",
    "NAXIS1",
    "NAXIS2",
    "NAXIS3",
    "NAXIS4",
    "PCOUNT",
    "GCOUNT",
    "EXTEND",
    "BSCALE",
    "BZERO",
    "BLANK",
    "EXTNAME",
    "EXTVER",
    "TFIELDS",
    "TFORM1",
    "TTYPE1",
    "ZIMAGE",
    "ZCMPTYPE",
    "ZBITPIX",
    "ZNAXIS",
    "ZNAXIS1",
    "ZNAXIS2",
    "ZTILE1",
    "ZTILE2",
    "ZSCALE",
    "ZZERO",
    "ZBLANK",
    "ZQUANTIZ",
    "THEAP",
    "OBJECT",
    "CTYPE1",
    "CRVAL1",
    "DATE-OBS",
    "CHECKSUM",
    "DATASUM",
    "GROUPS",
    "HISTORY",
    "COMMENT",
    "CONTINUE",
    "END",
    "HIERARCH",
]
_VALUES = [
    "0",
    "1",
    "-1",
    "2",
    "3",
    "8",
    "12",
    "16",
    "17",
    "32",
    "64",
    "-32",
    "-64",
    "7",
    "100",
    "999",
    "65536",
    "2147483647",
    "99999999999",
    "1.5",
    "1e400",
    "-1e-300",
    "NaN",
    "INF",
    "T",
    "F",
    "''",
    "'SCI'",
    "'IMAGE'",
    "'BINTABLE'",
    "'RICE_1'",
    "'GZIP_1'",
    "'PLIO_1'",
    "'NONE'",
    "'1E'",
    "'1PB(100)'",
    "'9999999A'",
    "'unfinished",
    "(1,2)",
    "1D3",
    "16#FF",
]


@st.composite
def _card_changed(draw: st.DrawFn, data: bytes) -> bytes:
    """One card changed, put in, left out or doubled; the header keeps its size where it can."""
    starts = [
        at
        for at in range(0, len(data) - _CARD, _CARD)
        if data[at : at + 1].isalpha() and data[at + 8 : at + 10] in (b"= ", b"  ")
    ]
    at = draw(st.sampled_from(starts))
    value = draw(st.sampled_from([*_VALUES, f"'{CANARY}'", "'" + "x" * 66 + "'", "\x00", "\xff"]))
    key = draw(st.sampled_from(_KEYS)) if draw(st.booleans()) else data[at : at + 8].decode("latin-1").strip()
    equals = draw(st.sampled_from(["= "] * 9 + ["  ", "=", " ="]))
    card = f"{key:8}{equals}{value:>20}"[:_CARD].ljust(_CARD).encode("latin-1")
    match draw(st.integers(0, 5)):
        case 0:
            return data[:at] + data[at + _CARD :]
        case 1:
            return data[:at] + card + data[at:]
        case 2:
            return data[:at] + data[at : at + _CARD] * 2 + data[at + 2 * _CARD :]
        case _:
            return data[:at] + card + data[at + _CARD :]


@st.composite
def broken(draw: st.DrawFn) -> tuple[str, bytes]:
    """The kind of a file and its bytes, changed."""
    kind = draw(st.sampled_from(sorted(samples())))
    data = samples()[kind]
    if kind == "zipped":
        if draw(st.booleans()):
            return kind, gzip.compress(draw(_card_changed(samples()["floats"])), 1, mtime=0)
        return kind, draw(edited_bytes(data))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
        data = draw(_card_changed(data))
    if draw(st.integers(0, 4)) == 0:
        data = draw(edited_bytes(data))
    return kind, data
