"""A server of HTTP that gives ranges and ETags, counts what it sends, and fails when it is told to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import quote, unquote

from tests.calm_bench.corpora.local_server import listening


@dataclass
class HttpFiles:
    """What the server gives and how, and what was asked of it."""

    root: Path
    url: str = ""
    ranges: bool = True
    tags: bool = True
    failing: int = 0
    """So many of the next requests for content are answered with 503."""
    breaking: int = 0
    """So many of the next answers end in their middle."""
    pages: dict[str, str] = field(default_factory=dict)
    """Pages by their path in place of those that list what there is."""
    refused: dict[str, int] = field(default_factory=dict)
    """What paths are answered with, quoted as they are asked for; 0 for nothing at all."""
    moved: dict[str, str] = field(default_factory=dict)
    """Where paths are sent on to."""
    sent: int = 0
    """Bytes of content."""
    requests: list[str] = field(default_factory=list)


def _handler(files: HttpFiles) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None: ...

        def do_HEAD(self) -> None:
            self._answer(with_content=False)

        def do_GET(self) -> None:
            self._answer(with_content=True)

        def _answer(self, with_content: bool) -> None:
            files.requests.append(f"{self.command} {self.path}")
            path = files.root / unquote(self.path.partition("?")[0]).lstrip("/")
            if (status := files.refused.get(self.path)) is not None:
                self.close_connection = not status
                return self._send(status, b"", {}, with_content) if status else None
            if self.path in files.moved:
                return self._send(302, b"", {"Location": files.moved[self.path]}, with_content)
            if self.path in files.pages:
                return self._send(200, files.pages[self.path].encode(), {"Content-Type": "text/html"}, with_content)
            if with_content and files.failing:
                files.failing -= 1
                return self._send(503, b"busy", {}, True)
            if path.is_dir():
                names = [f"{quote(entry.name)}{'/' * entry.is_dir()}" for entry in path.iterdir()]
                links = "".join(f'<a href="{name}">x</a>' for name in names)
                page = f'<a href="?C=N">sort</a><a href="../">up</a>{links}'.encode()
                return self._send(200, page, {"Content-Type": "text/html"}, with_content)
            if not path.is_file():
                return self._send(404, b"", {}, with_content)
            content = path.read_bytes()
            headers = {"Content-Type": "application/octet-stream"}
            if files.tags:
                headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if asked and files.ranges:
                start, stop = int(asked[1]), min(int(asked[2]) + 1, len(content))
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
                return self._send(206, content[start:stop], headers, with_content, counted=True)
            return self._send(200, content, headers, with_content, counted=True)

        def _send(
            self, status: int, content: bytes, headers: dict[str, str], with_content: bool, counted: bool = False
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_content:
                if counted and files.breaking:
                    files.breaking -= 1
                    content, self.close_connection = content[: len(content) // 2], True
                files.sent += len(content) if counted else 0
                self.wfile.write(content)

    return Handler


@contextmanager
def serving(root: Path) -> Iterator[HttpFiles]:
    """The files below ``root``, on a port of this machine."""
    files = HttpFiles(root)
    with listening(_handler(files)) as files.url:
        yield files
