"""A hub on loopback that takes what ``huggingface_hub`` sends, and remembers it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class FakeHub:
    """Repositories of models with their files, after the hub's HTTP interface."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Any]] = {}
        """What each was made with."""
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []

    def answer(self, path: str, body: bytes, authorization: str | None, address: str) -> tuple[int, Any]:
        self.requests.append(path)
        if authorization != "Bearer hf_good":
            return 401, {"error": "Invalid credentials"}
        if path == "/api/repos/create":
            made = json.loads(body)
            name = f"{made['organization']}/{made['name']}" if made.get("organization") else made["name"]
            if name in self.repositories:
                return 409, {"error": "You already created this model repo", "url": f"{address}/{name}"}
            self.repositories[name] = made
            return 200, {"url": f"{address}/{name}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in path:
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            return 200, {"files": [file | {"shouldIgnore": False, "oid": None} for file in files]}
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            repository, commit = path.removeprefix("/api/models/").partition("/commit/")[0], "0" * 40
            return 200, {"commitUrl": f"{address}/{repository}/commit/{commit}", "commitOid": commit}
        return 404, {"error": f"no {path} here"}


@contextmanager
def serving(hub: FakeHub) -> Iterator[str]:
    """Serve ``hub`` on a free port; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(body)

        def do_GET(self) -> None:
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            code, told = hub.answer(self.path.partition("?")[0], body, self.headers.get("Authorization"), address)
            content = json.dumps(told).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
