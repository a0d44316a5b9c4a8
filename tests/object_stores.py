"""Stores in object stores, for tests that look into them, and a real S3 server on loopback."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.store.object_backend import ObjectBackend
from pipelines.store.object_store import ObjectStore
from pipelines.store.store import Store

SECRET = "squeamish-ossifrage"
"""The S3 server takes any; no file and no message may show it."""


def remote_store(objects: ObjectStore, root: Path, **settings: float) -> Store:
    """The store at ``objects`` as a host has it that works below ``root``."""
    return Store(ObjectBackend(objects, root, **settings))


def objects_of(store: Store) -> ObjectStore:
    """All that hosts share of ``store``."""
    assert isinstance(store.backend, ObjectBackend)
    return store.backend.objects


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server on loopback."""
    moto = pytest.importorskip("moto.server", reason="moto is the S3 server of these tests")
    pytest.importorskip("s3fs", reason="s3fs reads and writes S3")
    server = moto.ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh bucket."""
    import botocore.session

    environment = {
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid.uuid4().hex}"
    botocore.session.get_session().create_client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/experiments"
