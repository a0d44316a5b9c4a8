"""A server that speaks what huggingface_hub asks of the hub about data sets."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from tests.calm_bench.corpora.local_server import listening

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Data sets as folders ``owner/name`` below ``root``, each at one commit; and what was fetched of their files.

    Earlier commits lie in ``at/COMMIT/owner/name``.
    """

    root: Path
    revision: str = REVISION
    """The commit of the main branch."""
    url: str = ""
    sent: dict[str, int] = field(default_factory=dict)
    """Bytes by file."""

    def folder(self, name: str, revision: str | None) -> Path:
        earlier = self.root / "at" / str(revision) / name
        return earlier if earlier.is_dir() else self.root / name

    def move_on(self, name: str, revision: str) -> Path:
        """Let the main branch be another commit, which begins as a copy; returns its folder."""
        shutil.copytree(self.root / name, self.root / "at" / self.revision / name)
        self.revision = revision
        return self.root / name


def _entry(file: Path, folder: Path) -> dict[str, Any]:
    content = file.read_bytes()
    path, digest = file.relative_to(folder).as_posix(), hashlib.sha256(content).hexdigest()
    found = {"type": "file", "path": path, "size": len(content), "oid": digest[:40]}
    if file.suffix == ".parquet":
        found["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
    return found


def _tree(folder: Path, below: str, recursive: bool) -> list[dict[str, Any]]:
    entries = sorted((folder / below).rglob("*") if recursive else (folder / below).iterdir())
    folders = [{"type": "directory", "path": one.relative_to(folder).as_posix(), "size": 0, "oid": "0" * 40}
               for one in entries if one.is_dir()]  # fmt: skip
    return folders + [_entry(one, folder) for one in entries if one.is_file()]


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None: ...

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        def _answer(self, body: bytes = b"") -> None:
            path, _, query = self.path.partition("?")
            path = unquote(path)
            if found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/([a-z-]+)/([^/]+)(?:/(.*))?)?", path):
                name, what, revision, rest = found.groups()
                if not (hub.root / name).is_dir():
                    return self._json({"error": "Repository not found"}, 404)
                folder = hub.folder(name, revision)
                return self._json(*self._about(folder, name, what, rest or "", parse_qs(query), body))
            if found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.*)", path):
                return self._file(hub.folder(found[1], found[2]) / found[3])
            return self._json({"error": "not found"}, 404)

        def _about(
            self, folder: Path, name: str, what: str | None, rest: str, query: dict[str, list[str]], body: bytes
        ) -> tuple[Any, int]:
            if what in (None, "revision"):
                commit = self._commit(folder)
                siblings = [{"rfilename": one["path"]} for one in _tree(folder, "", True) if one["type"] == "file"]
                about = {"_id": "1", "id": name, "sha": commit, "private": False, "gated": False, "tags": []}
                return about | {"disabled": False, "downloads": 0, "likes": 0, "siblings": siblings}, 200
            if what == "tree":
                if not (folder / rest).is_dir():
                    return {"error": "Entry not found"}, 404
                return _tree(folder, rest, query.get("recursive", ["false"])[0].lower() == "true"), 200
            if what == "paths-info":
                text = body.decode()
                asked = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text)["paths"]
                every = {one["path"]: one for one in _tree(folder, "", True)}
                return [every[path] for path in asked if path in every], 200
            return {"error": f"nobody speaks {what}"}, 404

        def _commit(self, path: Path) -> str:
            below = path.relative_to(hub.root).parts
            return below[1] if below[0] == "at" else hub.revision

        def _file(self, path: Path) -> None:
            if not path.is_file():
                return self._json({"error": "Entry not found"}, 404)
            content = path.read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": self._commit(path)}
            status, asked = 200, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if asked:
                start, stop = int(asked[1]), min(int(asked[2]) + 1, len(content))
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
                status, content = 206, content[start:stop]
            if self.command == "GET":
                name = path.relative_to(hub.root).as_posix()
                hub.sent[name] = hub.sent.get(name, 0) + len(content)
            return self._send(status, content, headers)

        def _json(self, value: Any, status: int = 200) -> None:
            missing = {"X-Error-Code": "EntryNotFound"} if status == 404 else {}
            self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **missing})

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    return Handler


@contextmanager
def serving(root: Path) -> Iterator[Hub]:
    """The data sets below ``root``, on a port of this machine: ``HF_ENDPOINT`` is its address."""
    hub = Hub(root)
    with listening(_handler(hub)) as hub.url:
        yield hub
