"""Files at addresses are the same text as files here: real servers of HTTP and S3, and what may go wrong with them."""

from __future__ import annotations

import gzip
import json
import lzma
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calm_bench.config import Corpus
from calm_bench.corpora import CorpusError, corpus_dependencies, divisible_bytes, read_documents, write_corpus
from calm_bench.corpora import input_parts as input_parts_module
from calm_bench.corpora import remote_file as remote_file_module
from calm_bench.corpora.remote import find_remote
from calm_bench.testing.corpus_conformance import CorpusConformance
from tests.calm_bench.corpora.http_files import HttpFiles, serving

pytestmark = pytest.mark.slow

TEXTS = [f"text {number} " + "naïve 数 " * (number % 23) for number in range(600)]


def make_files(folder: Path) -> None:
    folder.mkdir()
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
    (folder / "a.jsonl").write_bytes(lines)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (folder / "c.jsonl.xz").write_bytes(lzma.compress(lines))
    (folder / "d.jsonl.zst").write_bytes(pa.compress(lines, codec="zstd", asbytes=True))
    table = pa.table({"text": TEXTS, "other": [str(number) * 99 for number in range(len(TEXTS))]})
    pq.write_table(table, folder / "e.parquet", row_group_size=60)
    with pa.ipc.new_file(str(folder / "f.arrow"), table.schema) as file:
        file.write_table(table, max_chunksize=41)
    (folder / "g.txt").write_text("\n\n".join(TEXTS))
    (folder / "h.txt").write_text("wide".encode("utf-16").decode("latin-1"))
    (folder / "i.csv").touch()
    (folder / "notes.md").write_text("no text")
    (folder / "deep and wide").mkdir()
    (folder / "deep and wide" / "j.json").write_text(json.dumps([{"text": "deep"}]))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(remote_file_module, "PAUSES_S", (0.01, 0.02))
    make_files(tmp_path / "texts")
    return tmp_path / "texts"


@pytest.fixture
def server(folder: Path) -> Iterator[HttpFiles]:
    with serving(folder.parent) as files:
        yield files


@pytest.fixture
def in_memory(folder: Path) -> Iterator[str]:
    files = fsspec.filesystem("memory")
    files.put(str(folder), "/a-test/texts", recursive=True)
    yield "memory://a-test/texts"
    files.rm("/a-test", recursive=True)


def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_parts_module, "PART_BYTES", 20_000)


def written(source: str | Path, out: Path, **settings: Any) -> tuple[list[str], dict[str, int]]:
    report = write_corpus(Corpus(source=str(source), validation_fraction=0, test_fraction=0, **settings), out)
    return list(read_documents(out, "train")), report.skipped


class TestRemoteFiles(CorpusConformance):
    @pytest.fixture
    def corpus(self, tmp_path: Path, in_memory: str, monkeypatch: pytest.MonkeyPatch) -> Corpus:
        small_parts(monkeypatch)
        return Corpus(source=in_memory)


@pytest.mark.parametrize("in_parts", [False, True])
def test_a_folder_of_http_is_the_folder(
    tmp_path: Path, folder: Path, server: HttpFiles, in_parts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_parts:
        small_parts(monkeypatch)
    expected = written(folder, tmp_path / "here")
    assert len(expected[0]) > 6 * len(TEXTS)
    assert {"empty file", "file of another kind"} <= set(expected[1])
    assert written(f"{server.url}/texts/", tmp_path / "there") == expected
    assert (tmp_path / "there" / "corpus.json").exists() == in_parts


def test_a_folder_in_memory_is_the_folder(
    tmp_path: Path, folder: Path, in_memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch)
    expected = written(folder, tmp_path / "here")
    assert written(in_memory, tmp_path / "there") == expected
    assert divisible_bytes(Corpus(source=in_memory)) > 100_000


@pytest.mark.parametrize(
    "name", ["a.jsonl", "b.jsonl.gz", "c.jsonl.xz", "d.jsonl.zst", "e.parquet", "f.arrow", "g.txt"]
)
def test_a_file_of_each_kind(tmp_path: Path, folder: Path, server: HttpFiles, name: str) -> None:
    expected = written(folder / name, tmp_path / "here")
    assert written(f"{server.url}/texts/{name}?download=true", tmp_path / "there") == expected


def test_of_parquet_only_the_column_and_the_row_groups_are_fetched(
    tmp_path: Path, folder: Path, server: HttpFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_texts = [str(number) * 2000 for number in range(400)]
    table = pa.table({"text": long_texts, "other": [text[::-1] for text in long_texts]})
    pq.write_table(table, folder / "big.parquet", row_group_size=20, compression="none", use_dictionary=False)
    size = (folder / "big.parquet").stat().st_size
    monkeypatch.setattr(input_parts_module, "PART_BYTES", size // 10)
    source = f"{server.url}/texts/big.parquet"
    texts, _ = written(source, tmp_path / "few", max_documents=25)
    assert texts == long_texts[:25]
    # The footer of each part, and of the first two parts the text.
    assert server.sent < size / 4
    server.sent = 0
    assert written(source, tmp_path / "all")[0] == long_texts
    # Half of the file, and its footer for each part.
    assert size / 2 < server.sent < size * 0.9


def test_what_changes_is_another_corpus(folder: Path, server: HttpFiles) -> None:
    config = Corpus(source=f"{server.url}/texts/")
    before = corpus_dependencies(config)
    assert corpus_dependencies(config) == before
    (folder / "a.jsonl").write_text((folder / "a.jsonl").read_text().replace("text 1 ", "text 2 "))
    changed = corpus_dependencies(config)
    assert changed != before
    (folder / "notes.md").write_text("is not read")
    assert corpus_dependencies(config) == changed


def test_a_file_that_changes_in_between_is_named(
    tmp_path: Path, folder: Path, server: HttpFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch)

    def changing(work: Callable[[Any], Any], parts: Any) -> Iterator[Any]:
        yield work(parts[0])
        (folder / "a.jsonl").write_text("changed")
        yield work(parts[1])

    config = Corpus(source=f"{server.url}/texts/")
    with pytest.raises(CorpusError, match=r"texts/a\.jsonl has changed since"):
        write_corpus(config, tmp_path / "out", changing)
    make_again = folder.with_name("again")
    make_files(make_again)
    shutil.copy(make_again / "a.jsonl", folder / "a.jsonl")
    first = (tmp_path / "out" / "parts" / "00000" / "part.json").stat().st_ino
    write_corpus(config, tmp_path / "out")
    assert (tmp_path / "out" / "parts" / "00000" / "part.json").stat().st_ino == first


@pytest.mark.parametrize("fault", ["failing", "breaking"])
def test_a_request_that_fails_is_made_again(tmp_path: Path, folder: Path, server: HttpFiles, fault: str) -> None:
    expected = written(folder / "a.jsonl", tmp_path / "here")
    setattr(server, fault, 2)
    assert written(f"{server.url}/texts/a.jsonl", tmp_path / "there") == expected
    assert getattr(server, fault) == 0
    setattr(server, fault, 10_000)
    with pytest.raises(CorpusError, match=r"cannot read http.*a\.jsonl: Client"):
        written(f"{server.url}/texts/a.jsonl", tmp_path / "never")


def test_a_server_without_ranges_is_read_from_the_beginning(
    tmp_path: Path, folder: Path, server: HttpFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch)
    server.ranges = False
    monkeypatch.setattr(remote_file_module, "REQUEST_BYTES", 5000)
    for name in ("a.jsonl", "b.jsonl.gz"):
        assert written(f"{server.url}/texts/{name}", tmp_path / "there") == written(folder / name, tmp_path / "here")
    for name in ("e.parquet", "g.txt"):
        with pytest.raises(CorpusError, match=rf"{name} gives no ranges of bytes.*download"):
            written(f"{server.url}/texts/{name}", tmp_path / "there")
        # As it is advised.
        shutil.copy(folder / name, tmp_path / name)
        assert written(tmp_path / name, tmp_path / "there") == written(folder / name, tmp_path / "here")


def test_a_source_that_vanishes_is_named_and_its_parts_are_kept(
    tmp_path: Path, server: HttpFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch)
    config = Corpus(source=f"{server.url}/texts/a.jsonl")

    def vanishing(work: Callable[[Any], Any], parts: Any) -> Iterator[Any]:
        yield work(parts[0])
        (server.root / "texts" / "a.jsonl").unlink()
        yield work(parts[1])

    with pytest.raises(CorpusError, match=r"cannot read http://.*/texts/a\.jsonl: ClientResponseError: 404"):
        write_corpus(config, tmp_path / "out", vanishing)
    assert (tmp_path / "out" / "parts" / "00000" / "part.json").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://me:secret@host/a.jsonl", r"https://\.\.\. holds a password.*FSSPEC_HTTPS"),
        ("https://host/a.jsonl?X-Amz-Signature=abc", "holds a password or a signature"),
        ("s3://key:secret@bucket/a.jsonl", r"s3://\.\.\. holds a password"),
        ("s3://key:with/secret+slash@bucket/a.jsonl", r"s3://\.\.\. holds a password"),
        ("https://me@host:80/a.jsonl", "holds a password"),
        ("file:///data/a.jsonl", "name the path itself"),
        ("sss://bucket/a.jsonl", "corpus.source=sss://bucket/a.jsonl: Protocol not known: sss"),
        ("memory://nothing/a.jsonl", "cannot read memory://nothing/a.jsonl: no such file"),
        ("memory://nothing/", "cannot read memory://nothing: no such file.*may be listed"),
        ("http://127.0.0.1:9/a.jsonl", "cannot read http://127.0.0.1:9/a.jsonl: Client"),
    ],
)
def test_addresses_that_cannot_be_read(source: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_file_module, "PAUSES_S", (0.01,))
    with pytest.raises(CorpusError, match=message) as error:
        corpus_dependencies(Corpus(source=source))
    assert "secret" not in str(error.value)


def test_a_place_that_tells_no_version_is_refused(server: HttpFiles) -> None:
    server.tags = False
    with pytest.raises(CorpusError, match=r"does not tell an ETag or a time of change.*download"):
        corpus_dependencies(Corpus(source=f"{server.url}/texts/a.jsonl"))


def test_a_server_that_never_answers_is_named_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calm_bench.first_answer.FIRST_ANSWER_S", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/a.jsonl"
        began = time.monotonic()
        with pytest.raises(CorpusError, match=rf"cannot read {address}: no answer in 2 s: see whether the server runs"):
            corpus_dependencies(Corpus(source=address))
        assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://[::1/text.txt", r"^corpus\.source=https://\[::1/text\.txt is no address: Invalid IPv6 URL"),
        ("ftp://127.0.0.1:1/text.txt", r"^cannot read ftp://127\.0\.0\.1:1/text\.txt: ConnectionRefusedError"),
    ],
)
def test_what_is_no_address_or_refuses_at_once_is_named(source: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        find_remote(source)
