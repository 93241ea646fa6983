"""The reason of the Hub reaches the user in one line, with the remedy and without a token."""

from __future__ import annotations

import datetime
import email.utils
import json
import logging
from pathlib import Path

import pytest
from huggingface_hub import constants

from domainclip.data.files import hub_answers
from domainclip.errors import ModelError
from domainclip.hub.upload import push
from domainclip.models.loading import load_model
from tests.hub.local_hub import LocalHub, Refusal
from tests.hub.planted_leaks import TOKEN, fault

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
PAGE = b"<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>"
STORAGE = "Private repository storage limit reached, please upgrade your plan."
OWNER = 'create a token with write access to "lab" and log in with it, or choose another owner'
COMMIT, YAML, CREATE = "/commit/", "validate-yaml", "/repos/create"


def stated(reason: str, status: int) -> Refusal:
    return Refusal(status, json.dumps({"error": reason}).encode(), {"X-Error-Message": reason})


def page(status: int) -> Refusal:
    return Refusal(status, PAGE, {"Content-Type": "text/html"})


@pytest.mark.parametrize(
    ("place", "refusal", "reason"),
    [
        (
            CREATE,
            stated("Invalid token", 401),
            "answered 401, Invalid token: log in again with `hf auth login`, or",
        ),
        (CREATE, Refusal(403, b"{}"), f"answered 403: {OWNER}"),
        (COMMIT, stated("Forbidden", 403), f"answered 403, Forbidden: {OWNER}"),
        (
            COMMIT,
            stated(STORAGE, 403),
            f'{STORAGE[:-1]}: free some storage of "lab", or choose another owner',
        ),
        (
            COMMIT,
            stated("no such branch", 404),
            "answered 404, no such branch: check the name, and the access",
        ),
        (
            COMMIT,
            stated('"model-index[0]" must be', 400),
            'answered 400, "model-index[0]" must be: correct it, then push',
        ),
        (
            COMMIT,
            stated("busy", 409),
            "answered 409, busy: another change was made at the same time: push again",
        ),
        (
            COMMIT,
            stated("A commit has happened since", 412),
            "412, A commit has happened since: another change",
        ),
        (
            COMMIT,
            Refusal(413, b"too large"),
            "answered 413, too large: a file is too large for the Hub: push a",
        ),
        (
            COMMIT,
            Refusal(429, b"{}", {"Retry-After": "30"}),
            "answered 429: wait 30 seconds, then push again",
        ),
        (
            COMMIT,
            Refusal(429, b"{}", {"RateLimit": '"api";r=0;t=241'}),
            "answered 429: wait 5 minutes, then push again",
        ),
        (COMMIT, Refusal(429, b"{}"), "answered 429: wait a few minutes, then push again"),
        (COMMIT, Refusal(500, b"[]"), "answered 500: the fault is on its side: push again later"),
        (COMMIT, page(502), "answered 502: the fault is on its side: push again later"),
        (COMMIT, page(503), "answered 503: the fault is on its side: push again later"),
        (COMMIT, Refusal(504, b"\xff\xfe"), "answered 504"),
        (COMMIT, Refusal(418, b"teapot"), "answered 418, teapot: push again"),
        (
            COMMIT,
            page(200),
            "the answer is no JSON: check HF_ENDPOINT, and whether a proxy or a login page answers",
        ),
        (CREATE, page(200), "the answer is no JSON: check HF_ENDPOINT"),
        (CREATE, Refusal(200, b"[]"), "the answer is no JSON: check HF_ENDPOINT"),
        (YAML, page(502), "answered 502: the fault is on its side: push again later"),
        (YAML, Refusal(413, b"null"), "answered 413: a file is too large"),
        (
            COMMIT,
            Refusal(0, dropped=True),
            "the connection to http://127.0.0.1:{port} was lost: check the network, then push",
        ),
    ],
    ids=str,
)
def test_the_reason_and_the_remedy(
    run: Path, server: LocalHub, place: str, refusal: Refusal, reason: str
) -> None:
    server.fail = {place: refusal} | ({"/api/models/": Refusal(404)} if place == CREATE else {})
    message = fault(lambda: push(run, "lab/clip-cxr"))
    assert message.startswith("push to lab/clip-cxr: ")
    assert reason.format(port=server.url.rpartition(":")[2]) in message
    assert "<" not in message
    assert server.files == {}


def test_a_token_that_may_not_create_may_write_to_its_repository(run: Path, server: LocalHub) -> None:
    server.fail = {CREATE: Refusal(403)}
    push(run, "lab/clip-cxr")
    assert "README.md" in server.files


def test_all_reasons_of_the_front_matter(run: Path, server: LocalHub) -> None:
    reasons = [
        f'"language[{i}]" with value "jp" is not valid. It must be an ISO 639-1 code' for i in range(9)
    ]
    body = {"errors": [{"message": reason} for reason in reasons], "warnings": []}
    server.fail = {YAML: Refusal(400, json.dumps(body).encode())}
    assert fault(lambda: push(run, "lab/clip-cxr")) == (
        "push to lab/clip-cxr: the Hub refuses the front matter of README.md: "
        f"{'; '.join(reasons)}: correct it, then push again"
    )


def test_remarks_of_the_hub_are_lines_of_the_log(
    run: Path, server: LocalHub, caplog: pytest.LogCaptureFixture
) -> None:
    remark = {"errors": [], "warnings": [{"message": f"the license\nis unusual, {TOKEN}"}]}
    server.fail = {YAML: Refusal(200, json.dumps(remark).encode())}
    with caplog.at_level(logging.WARNING, "domainclip"):
        push(run, "lab/clip-cxr")
    assert [record.getMessage() for record in caplog.records] == [
        "push to lab/clip-cxr: the Hub remarks: Warnings while validating metadata in README.md: "
        "- the license is unusual, (token)"
    ]


def test_no_token_and_no_signature_in_a_reason(run: Path, server: LocalHub) -> None:
    reason = f"bad {TOKEN} and Bearer abc.def at https://store.org/x?X-Amz-Signature=77aa&y=1\x1b[31m\u202e"
    server.fail = {COMMIT: Refusal(400, json.dumps({"error": reason}).encode())}
    assert fault(lambda: push(run, "lab/clip-cxr")) == (
        "push to lab/clip-cxr: the Hub answered 400, bad (token) and (token) at https://store.org/x: "
        "correct it, then push again"
    )


def test_an_endless_conflict_ends(run: Path, server: LocalHub) -> None:
    reason = "Cannot create repo: another conflicting operation is in progress"
    server.fail = {CREATE: stated(reason, 409)}
    assert "another request: push again later" in fault(lambda: push(run, "lab/clip-cxr"))


def test_an_address_that_is_none(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "huggingface.co")
    assert "HF_ENDPOINT is not an address" in fault(lambda: push(run, "lab/clip-cxr"))


def test_a_date_in_retry_after() -> None:
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=10)
    assert hub_answers._wait({"Retry-After": email.utils.format_datetime(later)}) in range(590, 602)
    assert hub_answers._wait({"Retry-After": "soon"}) is None


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (
            stated("Access to model is restricted", 403),
            "the Hub answered 403, Access to model is restricted: log in with",
        ),
        (Refusal(429, b"{}", {"Retry-After": "7"}), "the Hub answered 429: wait 7 seconds, then try again"),
        (page(502), "the Hub answered 502: the fault is on its side: try again later"),
        (
            Refusal(404, b"{}", {"X-Error-Code": "RepoNotFound"}),
            "no such folder, and no such model on the Hub",
        ),
    ],
    ids=str,
)
def test_the_reason_why_a_base_cannot_be_fetched(
    server: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refusal: Refusal, reason: str
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    server.fail = {"/api/models/": refusal}
    with pytest.raises(ModelError) as caught:
        load_model("lab/clip-cxr-that-is-nowhere")
    assert reason in str(caught.value)
