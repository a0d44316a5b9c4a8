"""Text in S3, whose listings a client keeps: what another client has written since is seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from calm_bench.config import Corpus
from calm_bench.corpora import CorpusError, corpus_dependencies, input_parts, read_documents, write_corpus


@pytest.fixture
def put(s3: str) -> Callable[[str, str], None]:
    """Writes an object past the client that reads it."""
    import botocore.session

    bucket, _, prefix = s3.removeprefix("s3://").partition("/")
    client = botocore.session.get_session().create_client("s3")

    def write(name: str, word: str) -> None:
        lines = "".join(json.dumps({"text": f"{word} {name} {number}"}) + "\n" for number in range(50))
        client.put_object(Bucket=bucket, Key=f"{prefix}/texts/{name}", Body=lines.encode())

    return write


def corpus(s3: str, name: str = "") -> Corpus:
    return Corpus(source=f"{s3}/texts/{name}", validation_fraction=0, test_fraction=0)


def test_a_file_that_was_added_or_changed_is_another_corpus(s3: str, put: Callable[[str, str], None]) -> None:
    put("a.jsonl", "one")
    folder, file = [corpus_dependencies(corpus(s3))], [corpus_dependencies(corpus(s3, "a.jsonl"))]
    put("b.jsonl", "one")
    folder.append(corpus_dependencies(corpus(s3)))
    put("a.jsonl", "another")
    folder.append(corpus_dependencies(corpus(s3)))
    file.append(corpus_dependencies(corpus(s3, "a.jsonl")))
    assert len({found["versions"] for found in folder}) == 3
    assert len({found["versions"] for found in file}) == 2


def test_a_file_that_changes_while_others_are_read_is_named(
    s3: str, put: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_parts, "PART_BYTES", 1500)
    for name in ("a.jsonl", "b.jsonl"):
        put(name, "one")

    def changing(work: Callable[[Any], Any], parts: Sequence[Any]) -> Iterator[Any]:
        yield work(parts[0])
        put("b.jsonl", "another")
        yield work(parts[-1])

    with pytest.raises(CorpusError, match=r"texts/b\.jsonl has changed since it was looked at"):
        write_corpus(corpus(s3), tmp_path, changing)  # type: ignore[arg-type]
    write_corpus(corpus(s3), tmp_path)
    assert sum(text.startswith("another") for text in read_documents(tmp_path, "train")) == 50
