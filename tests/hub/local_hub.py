"""A local Hub server with the endpoints that a push uses; it records every request."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Request:
    """One recorded request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Refusal:
    """An answer that is no success, or not of the form that the client expects."""

    status: int
    body: bytes = b'{"error": "no"}'
    headers: dict[str, str] = field(default_factory=dict)
    dropped: bool = False  # the connection is closed without an answer


@dataclass
class LocalHub:
    """The server's state; `fail` maps a part of a path to the response."""

    private: bool = True  # visibility of an existing repository
    exists: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    fail: dict[str, Refusal] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    silent: bool = False  # sends no response

    def __enter__(self) -> LocalHub:
        self.done = threading.Event()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, call: Request) -> tuple[int, dict[str, Any]]:
        """Status and JSON."""
        if call.path == "/api/repos/create":
            return self._create(json.loads(call.body))
        if call.path.endswith("/preupload/main"):
            paths = [one["path"] for one in json.loads(call.body)["files"]]
            return 200, {"files": [{"path": p, "uploadMode": _mode(p), "shouldIgnore": False} for p in paths]}
        if call.path.endswith("/info/lfs/objects/batch"):
            return 200, {
                "transfer": "basic",
                "objects": [self._slot(o) for o in json.loads(call.body)["objects"]],
            }
        if call.path.startswith("/lfs/"):
            self.blobs[call.path.removeprefix("/lfs/")] = call.body
            return 200, {}
        if call.path.endswith("/commit/main"):
            return self._commit(call.body)
        if call.path == "/api/validate-yaml":
            return 200, {"warnings": [], "errors": []}
        siblings = [{"rfilename": name} for name in self.files]
        return 200, {"id": "lab/clip-cxr", "private": self.private, "siblings": siblings}

    def _create(self, payload: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        address = {"url": f"{self.url}/{payload['organization']}/{payload['name']}"}
        if self.exists:
            return 409, address
        self.exists, self.private = True, payload.get("visibility") == "private"
        return 200, address

    def _slot(self, payload: dict[str, Any]) -> dict[str, Any]:
        return {**payload, "actions": {"upload": {"href": f"{self.url}/lfs/{payload['oid']}"}}}

    def _commit(self, body: bytes) -> tuple[int, dict[str, Any]]:
        for line in body.splitlines():
            step = json.loads(line)
            value = step["value"]
            if step["key"] == "header":
                self.commits.append(value["summary"])
            elif step["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif step["key"] == "lfsFile":
                self.files[value["path"]] = self.blobs[value["oid"]]
            elif step["key"] == "deletedFile":
                del self.files[value["path"]]
        return 200, {"commitUrl": f"{self.url}/lab/clip-cxr/commit/1", "commitOid": "1"}


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub

    def _take(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        call = Request(self.command, self.path, dict(self.headers), body)
        self.hub.requests.append(call)
        if self.hub.silent:
            self.hub.done.wait()
            return
        refusal = next((one for part, one in self.hub.fail.items() if part in call.path), None)
        if refusal is None:
            status, answer = self.hub.answer(call)
            refusal = Refusal(status, json.dumps(answer).encode())
        elif refusal.dropped:
            self.close_connection = True
            return
        data = refusal.body
        self.send_response(refusal.status)
        for name, value in ({"Content-Type": "application/json"} | refusal.headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = _take

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, format: str, *arguments: object) -> None:
        """Silence."""


def _mode(path: str) -> str:
    return "lfs" if path.endswith(".safetensors") else "regular"
