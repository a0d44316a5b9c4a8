"""This machine is reached without a proxy, whatever the surroundings say."""

from __future__ import annotations

import http.server
import os
import threading
import urllib.request
from collections.abc import Iterator

import pytest

from calm_bench.proxies import settle_proxies


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Without proxies, and put back at the end."""
    # urllib keeps the proxies that it found at its first request, for all later ones of the process.
    urllib.request.install_opener(None)  # type: ignore[arg-type]
    for name in [*os.environ, "no_proxy", "NO_PROXY"]:
        if name.lower().endswith("_proxy"):
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
    yield monkeypatch
    urllib.request.install_opener(None)  # type: ignore[arg-type]


@pytest.fixture
def address() -> Iterator[str]:
    """Of a server on loopback."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_loopback_is_asked_directly(variable: str, address: str, surroundings: pytest.MonkeyPatch) -> None:
    import requests

    surroundings.setenv(variable, "http://127.0.0.1:9")
    settle_proxies()
    with urllib.request.urlopen(address, timeout=60) as answer:
        assert answer.status == 204
    assert requests.get(address, timeout=60).status_code == 204
    assert urllib.request.getproxies()[variable.lower().removesuffix("_proxy")] == "http://127.0.0.1:9"


def test_what_else_is_said_of_proxies_stays(surroundings: pytest.MonkeyPatch) -> None:
    settle_proxies()
    assert "no_proxy" not in os.environ, "there are none"
    surroundings.setenv("https_proxy", "http://proxy:3128")
    surroundings.setenv("NO_PROXY", "intern.example, 10.0.0.0/8,localhost")
    settle_proxies()
    settle_proxies()
    both = "intern.example,10.0.0.0/8,localhost,127.0.0.1,::1"
    assert (os.environ["no_proxy"], os.environ["NO_PROXY"]) == (both, both)
    surroundings.setenv("no_proxy", "*")
    settle_proxies()
    assert os.environ["no_proxy"] == "*"
