"""Answers of the Hub and of whatever stands before it: the push or the download ends in one line without the token."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.utils._http import default_client_factory, hf_request_event_hook
from hypothesis import strategies as st

from domainclip.data.cards import Card
from domainclip.data.corpus import build_reader
from domainclip.data.quarantine import ReadLog
from domainclip.hub import upload
from domainclip.models.loading import load_model
from tests.fuzz import documents
from tests.fuzz.oracle import Room
from tests.fuzz.tables import edited_bytes
from tests.hub.local_hub import LocalHub, Request
from tests.support.run_folders import made_run, recipe

MakeRoom = Callable[[str], Room]
TOKEN = "hf_" + "Pat1947CanaryPat1947CanaryPat1947"
_FAULTS = [
    httpx2.ConnectError,
    httpx2.ReadTimeout,
    httpx2.ConnectTimeout,
    httpx2.RemoteProtocolError,
    httpx2.ReadError,
    httpx2.ProxyError,
    httpx2.TooManyRedirects,
    OSError,
    ConnectionResetError,
]
_PLACES = [
    "/repos/create",
    "/api/models/",
    "validate-yaml",
    "preupload",
    "objects/batch",
    "/lfs/",
    "/commit/",
    "",
]


def _new_hub() -> LocalHub:
    hub = LocalHub()
    hub.url = "http://127.0.0.1:9"
    return hub


@dataclass
class Answers:
    """A server in this process: that of the tests, with other answers at one place."""

    hub: LocalHub = field(default_factory=_new_hub)
    place: str = ""
    answer: httpx2.Response | type[Exception] | None = None

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        """The answer to a request."""
        path = request.url.raw_path.decode()
        if self.place in path and self.answer is not None:
            if isinstance(self.answer, type):
                raise self.answer(f"lost at {request.url} with {TOKEN}")
            return httpx2.Response(
                self.answer.status_code, headers=self.answer.headers, content=self.answer.content
            )
        status, data = self.hub.answer(Request(request.method, path, dict(request.headers), request.read()))
        return httpx2.Response(status, json=data)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Answers]:
    """Every request of the client goes to the answers; waiting takes no time."""
    server = Answers()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    huggingface_hub.set_client_factory(
        lambda: httpx2.Client(
            transport=httpx2.MockTransport(server),
            event_hooks={"request": [hf_request_event_hook]},
            follow_redirects=True,
        )
    )
    yield server
    huggingface_hub.set_client_factory(default_client_factory)
    huggingface_hub.close_session()


_TEXTS = st.sampled_from(
    [
        "no",
        "Storage limit reached",
        f"the token {TOKEN} is not valid",
        f"https://u:{TOKEN}@x/y?sig={TOKEN}",
        "a\nb\r\nc",
        "\x1b[31mred",
        "x" * 9000,
        "é\u2028",
        "",
        "<html>",
    ]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**70) | st.floats(allow_nan=False) | _TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "error",
                    "errors",
                    "message",
                    "private",
                    "siblings",
                    "files",
                    "objects",
                    "url",
                    "sha",
                    "warnings",
                    "commitUrl",
                    "id",
                    "rfilename",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=6,
)
_HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "X-Error-Message",
            "X-Error-Code",
            "Retry-After",
            "RateLimit",
            "Content-Type",
            "Location",
            "X-Repo-Commit",
            "ETag",
            "X-Linked-Size",
        ]
    ),
    st.sampled_from(
        [
            "no",
            "Forbidden",
            "RepoNotFound",
            "GatedRepo",
            "120",
            "-5",
            "99999999999999999999",
            "Wed, 21 Oct 2099 07:28:00 GMT",
            "nonsense",
            "application/json",
            "text/html",
            "/elsewhere",
            f"bearer {TOKEN}",
            '"default";r=0;t=55',
            "1" * 5000,
        ]
    ),
    max_size=3,
)
_BODIES = st.one_of(
    _JSON.map(lambda value: json.dumps(value).encode("utf-8", "replace")),
    st.sampled_from(
        [
            b"",
            b"<!doctype html><h1>502</h1>",
            b"\xff\xfe",
            b"[" * 5000,
            b'{"error": ',
            b"version https://git-lfs",
        ]
    ),
    documents.PIECES.map(lambda piece: piece.encode("utf-8", "replace")),
    edited_bytes(
        b'{"id": "lab/clip", "private": true, "siblings": [{"rfilename": "README.md"}], "sha": "'
        + b"a" * 40
        + b'"}'
    ),
)
_STATUS = st.sampled_from(
    [
        200,
        200,
        201,
        204,
        301,
        307,
        400,
        401,
        402,
        403,
        404,
        408,
        409,
        412,
        413,
        416,
        418,
        422,
        429,
        451,
        500,
        502,
        503,
        504,
        599,
    ]
)
_ANSWERS = st.sampled_from(_FAULTS) | st.builds(
    lambda status, headers, body: httpx2.Response(status, headers=headers, content=body),
    _STATUS,
    _HEADERS,
    _BODIES,
)


def _given(place: str, answer: Any) -> Any:
    return (
        (place, answer)
        if isinstance(answer, type)
        else (place, answer.status_code, dict(answer.headers), answer.content)
    )


def test_pushes(room: MakeRoom, answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = room("Hub, push")
    run = made_run(tmp_path / "run", settings=recipe("lab/base-clip"))
    files = upload.files_to_push(run, False, "lab/clip-cxr")
    monkeypatch.setattr(upload, "files_to_push", lambda *_: files)
    assert here.observe(lambda: upload.push(run, "lab/clip-cxr"), "correct", TOKEN)

    @here.each(0.006, place=st.sampled_from(_PLACES), answer=_ANSWERS)
    def _(place: str, answer: Any) -> None:
        answers.hub, answers.place, answers.answer = _new_hub(), place, answer
        here.observe(lambda: upload.push(run, "lab/clip-cxr"), _given(place, answer), TOKEN)


def test_downloads(room: MakeRoom, answers: Answers) -> None:
    here = room("Hub, downloads")

    @here.each(
        0.003,
        place=st.sampled_from(["", "/api/", "config.json", "safetensors"]),
        answer=_ANSWERS,
        data=st.booleans(),
    )
    def _(place: str, answer: Any, data: bool) -> None:
        answers.hub, answers.place, answers.answer = _new_hub(), place, answer
        card = Card(reader="hub")

        def call() -> object:
            if data:
                return build_reader(card).read(card, "lab/set", ReadLog())
            return load_model("lab/clip")

        here.observe(call, _given(place, answer), TOKEN)
