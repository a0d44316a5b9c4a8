"""A corpus whose files lie in a bucket."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec  # type: ignore[import-untyped]

from calm_bench.config import Corpus
from calm_bench.corpora import corpus_dependencies, read_documents, write_corpus

TEXTS = [f"text {number}" for number in range(300)]


def test_the_files_of_a_bucket_are_a_corpus(tmp_path: Path, s3: str) -> None:
    lines = [json.dumps({"text": text}) + "\n" for text in TEXTS]
    files = fsspec.filesystem("s3")
    files.pipe_file(f"{s3}/texts/a.jsonl", "".join(lines[:200]).encode())
    files.pipe_file(f"{s3}/texts/deep/b.jsonl", "".join(lines[200:]).encode())
    config = Corpus(source=f"{s3}/texts", validation_fraction=0, test_fraction=0)
    write_corpus(config, tmp_path / "out")
    assert list(read_documents(tmp_path / "out", "train")) == TEXTS
    before = corpus_dependencies(config)
    assert corpus_dependencies(config) == before
    # Another client writes it: what this process has listed before must not stand for what is there now.
    fsspec.filesystem("s3", skip_instance_cache=True).pipe_file(f"{s3}/texts/a.jsonl", lines[0].encode())
    assert corpus_dependencies(config) != before
