"""A hub that is silent is named soon, instead of being asked for one file after the other."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from calm_bench.config import Corpus
from calm_bench.corpora.base import CorpusError, Skipped
from calm_bench.corpora.source import CORPORA
from calm_bench.hub_contact import hub_silence
from calm_bench.tokens.hugging_face import HuggingFaceTokenizer
from calm_bench.tokens.tokenizer import TokenizerError
from calm_bench.weights import WeightsError
from evals.adapters.hugging_face import HuggingFaceSampler
from pipelines.scoring.hub_upload import UploadError, upload

pytestmark = pytest.mark.slow


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that takes connections and says nothing; it may be asked."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_only_silence_is_silence(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(403)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert hub_silence(f"http://127.0.0.1:{server.server_port}") is None
        server.shutdown()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert hub_silence(f"http://127.0.0.1:{port}") is None, "nobody listens: the client says so at once"
    assert hub_silence("no address") is None
    assert str(hub_silence(silent, 0.2)).startswith(f"{silent} does not answer within")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hub_silence(silent, 0.2) is None


def test_what_asks_the_hub_says_that_it_is_silent(silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", silent)
    monkeypatch.setattr("calm_bench.hub_contact.hub_silence.__defaults__", (None, 0.2))
    with pytest.raises(TokenizerError, match=f"{silent} does not answer"):
        HuggingFaceTokenizer.from_pretrained("no-such-owner/no-such-tokenizer")
    with pytest.raises(WeightsError, match=f"{silent} does not answer"):
        HuggingFaceSampler.open("no-such-owner/no-such-model")
    corpus = Corpus(source="hf:no-such-owner/no-such-text", revision="0" * 40)
    with pytest.raises(CorpusError, match=f"{silent} does not answer"):
        list(CORPORA.get("hf").documents(corpus, Skipped()))
    with pytest.raises(UploadError, match=f"owner/name was not sent: {silent} does not answer"):
        upload(tmp_path, "owner/name", public=False, message="a model")
