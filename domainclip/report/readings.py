"""The readings of a line: unchanged, and with the escapes of HTML, Markdown, JSON and addresses resolved."""

from __future__ import annotations

import base64
import binascii
import html
import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

_ROUNDS = 3  # escapes within escapes
_IMAGE = re.compile(r"data:image/[\w.+-]+;base64,[A-Za-z0-9+/=]+")  # may hold the letters of anything
_DATA = re.compile(r"data:[\w/.+;=-]*;base64,([A-Za-z0-9+/]+={0,2})")
_CODE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2}))")
_INLINE = re.compile(
    r"</?(?:a|abbr|b|bdi|code|del|em|font|i|ins|kbd|mark|q|s|samp|small|span|strong|sub|sup|tt|u|var|wbr)\b[^<>]*>"
    r"|<!--.*?-->",
    re.IGNORECASE,
)
_JSON = re.compile(r'\\(["\\/bfnrt])')


def json_line(line: str) -> str:
    """A line of a JSON file with the escapes of its strings resolved; a line break is a blank."""
    return _JSON.sub(lambda escape: " " if escape[1] in "bfnrt" else escape[1], _CODE.sub(_character, line))


def readings(line: str) -> Iterator[str]:
    """Every text as which the line may be read, without base64 of images."""
    line = _IMAGE.sub("", line)
    seen = {line}
    for _ in range(_ROUNDS):
        seen |= {reading for text in seen for reading in _decoded(text)}
    yield from seen


def _decoded(text: str) -> Iterator[str]:
    if not text.isascii():
        # Slashes of full width, and characters without width between two letters.
        text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
        text = unicodedata.normalize("NFKC", text)
    yield _INLINE.sub("", text)
    text = _CODE.sub(_character, unquote(html.unescape(text)))
    yield text
    yield re.sub(r"\\([^a-zA-Z0-9\s\\])", r"\1", text)  # as Markdown shows it
    for encoded in _DATA.findall(text):
        try:
            yield base64.b64decode(encoded + "=" * (-len(encoded) % 4)).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            continue


def _character(code: re.Match[str]) -> str:
    return chr(int(code[1] or code[2], 16))
