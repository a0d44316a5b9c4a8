"""Every format and compression as real files, whole and damaged, and documents above the limit."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calm_bench.config import Corpus
from calm_bench.corpora import CorpusError, Document, Skipped, identity_config, write_corpus
from calm_bench.corpora.json_values import json_values
from calm_bench.corpora.local import SOURCE

TEXTS = [f'Record {number}, "quoted",\nwith ü and a second line. {"x" * (number % 97)}' for number in range(3000)]


def read(source: Path) -> tuple[list[Document], Skipped]:
    skipped = Skipped()
    return list(SOURCE.documents(Corpus(source=str(source)), skipped)), skipped


def zstd(data: bytes) -> bytes:
    compressed = pa.compress(data, codec="zstd", asbytes=True)
    assert isinstance(compressed, bytes)
    return compressed


def encoded(suffix: str) -> bytes:
    records = [{"id": number, "text": text} for number, text in enumerate(TEXTS)]
    if suffix == ".jsonl":
        return "".join(json.dumps(record) + "\n" for record in records).encode()
    if suffix == ".json":
        return json.dumps(records, indent=1, ensure_ascii=False).encode()
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, ["id", "text"])
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue().encode()


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstd,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_records_of_every_text_format(tmp_path: Path, suffix: str, compression: str) -> None:
    path = tmp_path / f"a{suffix}{compression}"
    path.write_bytes(COMPRESS[compression](encoded(suffix)))
    documents, skipped = read(path)
    assert [document.text for document in documents] == TEXTS
    assert skipped.counts == {}


@pytest.mark.parametrize("compression", [".gz", ".zst", ".xz", ".bz2"])
def test_compressed_text_is_cut_like_plain_text(tmp_path: Path, compression: str) -> None:
    data = b"\xef\xbb\xbf" + "\n\n".join(TEXTS).encode()
    (tmp_path / "a.txt").write_bytes(data)
    (tmp_path / f"b.txt{compression}").write_bytes(COMPRESS[compression](data))
    plain, packed = read(tmp_path / "a.txt")[0], read(tmp_path / f"b.txt{compression}")[0]
    assert len(plain) > 100
    assert [document.text for document in packed] == [document.text for document in plain]


@pytest.mark.parametrize("layout", ["file", "stream"])
def test_rows_of_arrow(tmp_path: Path, layout: str) -> None:
    table = pa.table({"text": TEXTS})
    new = pa.ipc.new_file if layout == "file" else pa.ipc.new_stream
    with new(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=700)
    documents, _ = read(tmp_path)
    assert [document.text for document in documents] == TEXTS
    assert documents[-1].where == "a.arrow:3000"
    (tmp_path / "a.arrow").write_bytes(b"no Arrow at all")
    with pytest.raises(CorpusError, match=r"a\.arrow is not a readable Arrow file"):
        read(tmp_path)


@pytest.mark.parametrize("compression", [".gz", ".zst", ".xz", ".bz2"])
def test_a_compressed_file_cut_off_is_named_and_loses_no_other(tmp_path: Path, compression: str) -> None:
    whole = COMPRESS[compression](encoded(".jsonl"))
    (tmp_path / f"a.jsonl{compression}").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.jsonl").write_bytes(encoded(".jsonl"))
    documents, skipped = read(tmp_path)
    assert [document.text for document in documents][-len(TEXTS) :] == TEXTS
    [reason] = [reason for reason in skipped.counts if "cut off or damaged" in reason]
    assert skipped.examples[reason][0].startswith(f"a.jsonl{compression}")


def test_empty_files_missing_fields_and_foreign_bytes_are_counted_by_name(tmp_path: Path) -> None:
    for name in ("a.csv", "b.json", "c.jsonl", "d.parquet", "e.arrow"):
        (tmp_path / name).touch()
    (tmp_path / "f.csv").write_bytes(b"id,text\n1,good\n2\n3,caf\xe9\n")
    (tmp_path / "g.csv").write_text("id,body\n1,elsewhere\n")
    (tmp_path / "h.json").write_text('[{"text": "kept"}, 7, {"body": 1}, {"text": "cut o')
    pq.write_table(pa.table({"other": [1, 2]}), tmp_path / "i.parquet")
    report = write_corpus(Corpus(source=str(tmp_path), validation_fraction=0, test_fraction=0), tmp_path / "out")
    assert report.documents["train"] == 2
    assert report.examples == {
        "JSON value that is no object": ["h.json:2"],
        "broken JSON, the rest of its file unread": ["h.json:4"],
        "empty file": ["a.csv", "b.json", "c.jsonl", "d.parquet", "e.arrow"],
        "invalid UTF-8": ["f.csv:4"],
        "no field 'text'": ["f.csv:3", "g.csv:2", "h.json:3", "i.parquet:1"],
    }


@pytest.mark.parametrize("text", ["[]", "[1, 22, -3.5e2]", '{"a": [1]}\n{"b": "]"}', "[[1], [true, null]]"])
def test_json_values_whatever_the_pieces(text: str) -> None:
    class OneByte(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            return super().read1(1)

    expected = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    assert list(json_values(OneByte(text.encode()))) == expected


def test_documents_above_the_limit_are_counted_and_not_held(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as out:
        out.write(b'{"text": "short"}\n{"text": "' + b"y" * 60_000_000 + b'"}\n')
        out.write(json.dumps({"text": "ü" * 501}).encode() + b"\n" + json.dumps({"text": "ü" * 500}).encode())
    config = Corpus(source=str(path), validation_fraction=0, test_fraction=0, max_document_bytes=1000)
    # What is imported with the first document is no part of what a document needs.
    (tmp_path / "first.jsonl").write_text('{"text": "short"}\n')
    write_corpus(config.model_copy(update={"source": str(tmp_path / "first.jsonl")}), tmp_path / "first")
    tracemalloc.start()
    report = write_corpus(config, tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.documents["train"] == 2
    assert report.examples == {"document above max_document_bytes": ["a.jsonl.gz:2", "a.jsonl.gz:3"]}
    assert peak < 15_000_000
    assert identity_config(config)["max_document_bytes"] == 1000
    assert "max_document_bytes" not in identity_config(Corpus(source=str(path)))
