from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipelines.common.redact import redact
from pipelines.study.config import Tracking
from pipelines.tracking.address import tracking_uri


def test_the_address_is_the_studys_then_the_environments_then_the_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(Tracking(), tmp_path) == f"sqlite:///{tmp_path.resolve()}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    assert tracking_uri(Tracking(), tmp_path) == "http://environment"
    assert tracking_uri(Tracking(uri="http://study"), tmp_path) == "http://study"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://me:pass@host:5000/x", "http://***@host:5000/x"),
        ("http://token@host", "http://***@host"),
        ("postgresql+psycopg2://me:p@ss:word@host/db?sslmode=on", "postgresql+psycopg2://***@host/db?sslmode=on"),
        ("postgresql://me:a/b@c@host:5432/db, which", "postgresql://***@host:5432/db, which"),
        ("mysql://host/db?user=me&password=secret&x=1", "mysql://host/db?user=me&password=***&x=1"),
        ("https://host/?api_key=abc", "https://host/?api_key=***"),
        ("two http://a:b@c and ftp://d:e@f.", "two http://***@c and ftp://***@f."),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("1http://me:pass@host and a" + "a" * 60 + "://me@host", "1http://***@host and a" + "a" * 60 + "://***@host"),
        ("mail me@example.org, see http://host/a@b", "mail me@example.org, see http://host/a@b"),
    ],
)
def test_credentials_are_masked(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_a_long_text_in_a_message_takes_no_time() -> None:
    """A prompt of 128 kB on a command line that failed was looked through for half a minute."""
    begun = time.process_time()
    for text in ("a" * 128_000, "?" + "password" * 16_000, "postgres" * 16_000, "http://" + "a" * 128_000):
        assert redact(text) == text
    assert time.process_time() - begun < 2.0
