"""Offline, nothing leaves this machine: what needs the network is refused by name, and any other call as well."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import datasets
import huggingface_hub
import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from domainclip.cli.app import app
from domainclip.config import offline
from domainclip.data.files import remote
from domainclip.data.quarantine import ReadLog
from domainclip.data.readers.hub import Hub
from domainclip.errors import DomainclipError, ExitCode, HubError, ModelError
from domainclip.hub import upload
from domainclip.models.checkpoint_files import find_checkpoint
from tests.support.run_folders import made_run, recipe


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Work offline for one test, with an empty cache of the Hub."""
    for name in (offline.VARIABLE, "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "0")  # restored afterwards
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    offline.go_offline()


def _fault(call: Callable[[], object]) -> str:
    with pytest.raises(DomainclipError) as caught:
        call()
    return str(caught.value)


def _datagram(call: Callable[[socket.socket], object]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        call(one)


@pytest.mark.usefixtures("forbidden")
@pytest.mark.parametrize(
    "call",
    [
        lambda: socket.create_connection(("192.0.2.1", 443), timeout=0.1),
        lambda: _datagram(lambda one: one.connect(("192.0.2.1", 53))),
        lambda: _datagram(lambda one: one.sendto(b"x", ("192.0.2.1", 53))),
        lambda: socket.getaddrinfo("192.0.2.1", 443),
        lambda: socket.gethostbyname("192.0.2.1"),
    ],
)
def test_no_connection_to_another_machine(call: Callable[[], object]) -> None:
    assert _fault(call) == (
        "192.0.2.1: a connection that --offline forbids: leave the option out, or work on local files"
    )


@pytest.mark.usefixtures("forbidden")
def test_a_name_is_not_looked_up() -> None:
    with pytest.raises(HubError, match=r"^huggingface\.co: a connection"):
        socket.create_connection(("huggingface.co", 443), timeout=0.1)


@pytest.mark.usefixtures("forbidden")
def test_this_machine_may_talk_to_itself() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        for host in ("127.0.0.1", "localhost"):
            with socket.create_connection((host, server.getsockname()[1]), timeout=5) as connection:
                assert connection.getpeername()[1] == server.getsockname()[1]


def test_outside_work_offline_the_hook_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(offline.VARIABLE, "1")
    offline._add_hook()
    monkeypatch.setenv(offline.VARIABLE, "0")
    assert socket.getaddrinfo("192.0.2.1", 443)  # an address needs no look-up


@pytest.mark.usefixtures("forbidden")
def test_a_base_that_would_be_fetched_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    text = "base: openai/clip-x\ncorpus: {path: gone, card: general}\nstrategy: lora\n"
    (tmp_path / "r.yaml").write_text(text)
    for command in (["plan"], ["finetune", "--run-dir", str(tmp_path / "run")], ["data", "check"]):
        done = CliRunner().invoke(app, ["--offline", *command, "-r", str(tmp_path / "r.yaml")])
        assert isinstance(done.exception, ModelError)
        assert str(done.exception) == (
            'base "openai/clip-x": not on this machine, and --offline forbids to fetch it: run "hf download '
            'openai/clip-x" where there is a network, or name a folder'
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("forbidden")
def test_a_model_in_the_cache_is_no_call(tmp_path: Path) -> None:
    assert _fault(lambda: find_checkpoint("lab/clip", "abc")).startswith(
        'base "lab/clip": not on this machine, and --offline forbids to fetch it: run "hf download lab/clip '
        '--revision abc"'
    )
    commit = "1" * 40
    snapshot = tmp_path / "hub" / "models--lab--clip" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    refs = tmp_path / "hub" / "models--lab--clip" / "refs"
    refs.mkdir()
    (refs / "main").write_text(commit)
    offline.refuse_unfetched("base", "lab/clip", None)
    assert huggingface_hub.try_to_load_from_cache("lab/clip", "config.json") == str(snapshot / "config.json")


@pytest.mark.usefixtures("forbidden")
def test_data_sets_addresses_and_pushes_are_refused_by_name(tmp_path: Path) -> None:
    assert _fault(lambda: Hub().source("lab/chests", ReadLog())) == (
        'data set lab/chests: needs the network, which --offline forbids: run "hf download --repo-type dataset '
        'lab/chests --local-dir FOLDER" where there is a network, and read its files with corpus.path=FOLDER'
    )
    assert _fault(lambda: remote.open_stream("https://example.org/a.tar?sig=SECRET")) == (
        "corpus.path, an address: needs the network, which --offline forbids: download its files where there "
        "is a network, and name their folder"
    )
    run = made_run(tmp_path / "run", settings=recipe("lab/base-clip"))
    assert _fault(lambda: upload.push(run, "lab/x")) == (
        "push to lab/x: needs the network, which --offline forbids: leave the option out, or preview the push "
        "with --dry-run"
    )
    assert upload.push(run, "lab/x", dry_run=True).files


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_the_variable(value: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(offline.VARIABLE, value)
    assert offline.is_offline() == expected


def test_offline_errors_have_their_exit_code() -> None:
    assert (HubError.code, ModelError.code) == (ExitCode.HUB, ExitCode.MODEL)
