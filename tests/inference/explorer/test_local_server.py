"""The server answers this machine alone, with the token, under its own name, and reveals nothing else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from threading import Thread

import pytest

from domainclip.inference.explorer.local_server import LocalServer, Reply


def answer(path: str, query: str) -> Reply | None:
    if path == "fault":
        raise ValueError(query)  # as a library quotes what it cannot read
    return Reply(f"<p>{path}?{query}</p>".encode()) if path != "missing" else None


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(answer) as made:
        Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield made
        made.shutdown()


def ask(
    server: LocalServer, path: str, method: str = "GET", host: str | None = "", **headers: str
) -> tuple[HTTPResponse, str]:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    if host is not None:
        connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response, text


def test_the_page_needs_the_token(server: LocalServer) -> None:
    response, text = ask(server, f"/{server.token}/?words=a")
    assert (response.status, text) == (200, "<p>?words=a</p>")
    guess = server.token[:-1] + ("a" if server.token[-1] != "a" else "b")
    for path in ("/", f"/{guess}/", "//", f"/x/{server.token}/", f"/{server.token}", "/%C3%A4/"):
        response, text = ask(server, path)
        assert response.status == 404
        assert server.token not in text
    assert len(server.token) >= 32, "at least 128 bits"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", None, "[::1]:{port}"]
)
def test_another_name_of_this_machine_is_refused(server: LocalServer, host: str | None) -> None:
    """A name that an attacker pointed at 127.0.0.1 (DNS rebinding), even with the token."""
    typed = None if host is None else host.format(port=server.server_port)
    response, text = ask(server, f"/{server.token}/", host=typed)
    assert response.status in (400, 421)
    assert "<p>" not in text
    assert ask(server, f"/{server.token}/", host=f"localhost:{server.server_port}")[0].status == 200


def test_no_other_origin_may_read_or_embed_it(server: LocalServer) -> None:
    response, _ = ask(server, f"/{server.token}/", Origin="http://evil.example")
    assert not [name for name, _ in response.getheaders() if name.lower().startswith("access-control")]
    policy = response.getheader("Content-Security-Policy") or ""
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    expected = {
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
    assert {name: response.getheader(name) for name in expected} == expected
    assert ask(server, f"/{server.token}/", "OPTIONS", Origin="http://evil.example")[0].status == 501
    assert ask(server, f"/{server.token}/", "POST")[0].status == 501


def test_a_fault_reveals_no_value(server: LocalServer, capfd: pytest.CaptureFixture[str]) -> None:
    response, text = ask(server, f"/{server.token}/fault?words=MRN1")
    assert (response.status, text) == (500, "a fault of domainclip: please report it")
    assert ask(server, f"/{server.token}/missing")[0].status == 404
    seen = "".join(capfd.readouterr())
    assert "test_local_server.py" in seen, "the lines of the fault are for a report"
    assert not [value for value in ("MRN1", server.token) if value in seen]


def test_head_has_no_content(server: LocalServer) -> None:
    response, text = ask(server, f"/{server.token}/", "HEAD")
    assert (response.status, text) == (200, "")
    assert response.getheader("Content-Length") == "8"


def test_it_listens_on_the_loopback_interface_alone(server: LocalServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", server.server_port))
