"""Refusals of the Hub and failures of the connection, as one line with the reason and the remedy."""

from __future__ import annotations

import datetime
import email.utils
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

_LONGEST = 1500  # characters of a reason; the Hub lists every fault of a front matter
_TOKEN = re.compile(r"\b(?:hf|api_org|ghp)_\w+|(?i:\bbearer\s+\S+)|(?<=://)[^/\s:@]+:[^/\s@]+@")
_QUERY = re.compile(r"(https?://[^\s?]+)\?\S+")  # of a storage address: it holds a signature
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# The client fails so at an answer of another form than it expects.
_MALFORMED = (json.JSONDecodeError, KeyError, TypeError, AttributeError)
_NO_JSON = (
    "the answer is no JSON: check HF_ENDPOINT, and whether a proxy or a login page answers in its place"
)


def explain(error: BaseException, again: str, *, owner: str = "", response: Any = None) -> str:
    """The reason of the Hub, or the kind of a failed connection, with the remedy; else the error's own text.

    `again` is the action to repeat, `owner` that of a repository that is written, and `response` the last
    answer, for an error that holds none.
    """
    for cause in _causes(error):  # the outer error of a client often names the file alone
        text = _connection(cause, again) or _refusal(cause, again, owner, _response(cause))
        if text is not None:
            return text
    refusal = _refusal(error, again, owner, response) if isinstance(error, _MALFORMED) else None
    return refusal or f"{one_line(str(error)) or type(error).__name__}: {again}"


def is_answer(error: BaseException) -> bool:
    """Whether the Hub was reached, and refused."""
    return any(isinstance(getattr(_response(cause), "status_code", None), int) for cause in _causes(error))


def endpoint() -> str:
    """The address of the Hub, which HF_ENDPOINT may change."""
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT") or constants.ENDPOINT


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _response(error: BaseException) -> Any:
    return getattr(error, "response", None)  # of the client's errors only those of an answer have it


def _refusal(error: BaseException, again: str, owner: str, answer: Any) -> str | None:
    """The reason in the answer; None for none."""
    if not isinstance(getattr(answer, "status_code", None), int):
        return None
    if answer.status_code < 400:
        return _NO_JSON if isinstance(error, _MALFORMED) else None
    reason = one_line(getattr(error, "server_message", None) or _stated(answer))
    remedy = _remedy(answer.status_code, reason.lower(), answer.headers, again, owner)
    return f"the Hub answered {answer.status_code}{f', {reason}' if reason else ''}: {remedy}"


def _connection(error: BaseException, again: str) -> str | None:
    """The kind of a failed connection and its remedy; None for another error."""
    name, text = type(error).__name__, str(error)
    if "CERTIFICATE_VERIFY" in text:
        return f"the certificate of {endpoint()} is not trusted: name that of your network in SSL_CERT_FILE"
    if name in ("UnsupportedProtocol", "InvalidURL", "MissingSchema"):
        return "HF_ENDPOINT is not an address: set it to https://huggingface.co, or unset it"
    if "Timeout" in name:
        return f"{endpoint()} does not answer: {again} later"
    if name in ("RemoteProtocolError", "ReadError", "WriteError", "CloseError", "LocalProtocolError"):
        return f"the connection to {endpoint()} was lost: check the network, then {again}"
    if name == "TooManyRedirects":
        return _NO_JSON
    if "Connect" in name or name == "ProxyError" or isinstance(error, ConnectionError):
        return f"{endpoint()} cannot be reached: check the network and HF_ENDPOINT"
    return None


def one_line(text: str) -> str:
    """A text of a server in one line, without tokens, signatures and control characters."""
    text = " ".join(_ESCAPES.sub("", text).split())
    text = "".join(letter for letter in text if letter.isprintable())
    text = _QUERY.sub(r"\1", _TOKEN.sub("(token)", text)).rstrip(" .:")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _remedy(code: int, reason: str, headers: Mapping[str, str], again: str, owner: str) -> str:
    if code in (402, 403) and re.search(r"storage|quota|limit|upgrade|plan|billing|payment", reason):
        return (
            f'free some storage of "{owner}", or choose another owner' if owner else "see your account there"
        )
    if code == 403 and owner:
        return f'create a token with write access to "{owner}" and log in with it, or choose another owner'
    if code in (429, 503) and (seconds := _wait(headers)):
        return f"wait {_duration(seconds)}, then {again}"
    known = {
        400: f"correct it, then {again}",
        401: "log in again with `hf auth login`, or correct HF_TOKEN",
        402: "see the plan of the account",
        403: "log in with a token that has access",
        404: "check the name, and the access of the token",
        408: f"{again} later",
        409: f"another change was made at the same time: {again}",
        412: f"another change was made at the same time: {again}",
        413: "a file is too large for the Hub: push a smaller model, or save it in several files",
        422: f"correct it, then {again}",
        429: f"wait a few minutes, then {again}",
    }
    fault = f"the fault is on its side: {again} later" if code >= 500 else again
    return known.get(code, fault)


def _stated(answer: Any) -> str:
    """The reason in the header or in the body of an answer; empty for a web page."""
    stated = answer.headers.get("X-Error-Message")
    if stated:
        return str(stated)
    try:
        data = answer.json()
    except Exception:  # of any kind: bytes that are no text, a body that was not read
        return _plain(answer)
    if not isinstance(data, dict):
        return ""
    listed = data.get("errors")
    errors = listed if isinstance(listed, list) else []
    found = [data.get("error"), data.get("message")]
    found += [error.get("message") if isinstance(error, dict) else error for error in errors]
    return "; ".join(text for text in found if isinstance(text, str))


def _plain(answer: Any) -> str:
    try:
        text = str(answer.text).strip()
    except Exception:  # a body that was not read
        return ""
    return "" if text.startswith("<") or "html" in answer.headers.get("Content-Type", "") else text


def _wait(headers: Mapping[str, str]) -> int | None:
    """Seconds until another request is allowed, by Retry-After or RateLimit; None: not stated."""
    stated = headers.get("Retry-After") or ""
    if stated.strip().isdecimal():
        return int(stated)
    if stated:
        try:
            until = email.utils.parsedate_to_datetime(stated)
        except ValueError:
            return None
        return max(1, round((until - datetime.datetime.now(datetime.UTC)).total_seconds()))
    match = re.search(r"\bt=(\d+)", headers.get("RateLimit") or "")
    return int(match[1]) if match else None


def _duration(seconds: int) -> str:
    return f"{seconds} seconds" if seconds < 120 else f"{-(-seconds // 60)} minutes"
