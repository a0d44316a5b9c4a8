"""Folders as people have them: whatever cannot be read is counted by name, and costs nothing else."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import random
import re
import shlex
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calm_bench.config import Corpus, MixtureSource
from calm_bench.corpora import (
    CorpusError,
    CorpusReport,
    Skipped,
    corpus_dependencies,
    read_documents,
    write_corpus,
)
from calm_bench.corpora import json_values as json_values_module
from calm_bench.corpora.csv_rows import csv_rows
from calm_bench.corpora.json_values import TooLong, json_values
from calm_bench.corpora.local import SOURCE
from calm_bench.corpora.records import TOO_LONG


def written(source: Path, out: Path, **settings: Any) -> tuple[list[str], CorpusReport]:
    corpus = Corpus(source=str(source), validation_fraction=0, test_fraction=0, **settings)
    report = write_corpus(corpus, out)
    return list(read_documents(out, "train")), report


def test_files_of_one_folder_need_not_agree(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"text": "one", "id": 1}\n{"id": "x", "text": "two"}\n{"text": ["list"]}\n[]\n')
    (folder / "b.csv").write_text("id,lang,text\n1,en,three\n2,de\n")
    pq.write_table(pa.table({"text": pa.array(["four"]).dictionary_encode(), "n": [1.5]}), folder / "c.parquet")
    pq.write_table(pa.table({"n": [1], "text": pa.array(["five"], pa.large_string())}), folder / "d.parquet")
    pq.write_table(pa.table({"text": [6, 7]}), folder / "e.parquet")
    pq.write_table(pa.table({"text": pa.array([b"raw"])}), folder / "f.parquet")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), folder / "g.parquet")
    pq.write_table(pa.table({"body": ["elsewhere"]}), folder / "h.parquet")
    pq.write_table(pa.table([pa.array(["x"]), pa.array(["of two, the last"])], ["text", "text"]), folder / "i.parquet")
    found, report = written(folder, tmp_path / "out")
    assert found == ["one", "two", "three", "four", "five", "of two, the last"]
    assert report.examples == {
        "JSON line that is no object": ["a.jsonl:4"],
        "field 'text' is no text": ["a.jsonl:3", "e.parquet:1", "e.parquet:2", "f.parquet:1"],
        "no field 'text'": ["b.csv:3", "h.parquet:1"],
    }


@pytest.mark.parametrize("kind", ["txt", "jsonl", "json", "csv"])
def test_files_that_hold_nothing(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / f"a.{kind}").touch()
    # Nothing packed, and a file that lost even its header.
    (folder / f"b.{kind}.gz").write_bytes(gzip.compress(b""))
    (folder / f"c.{kind}.gz").touch()
    (folder / "d.jsonl").write_text('{"text": "kept"}\n')
    found, report = written(folder, tmp_path / "out")
    assert found == ["kept"]
    named = {where.partition(":")[0] for places in report.examples.values() for where in places}
    assert f"a.{kind}" in named
    assert named <= {f"a.{kind}", f"b.{kind}.gz", f"c.{kind}.gz"}


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": partial(lzma.compress, preset=0),
    "bz2": bz2.compress,
}


def zst(content: bytes) -> bytes:
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "zstd") as out:
        out.write(content)
    return bytes(packed.getvalue().to_pybytes())


@pytest.mark.parametrize("packer", [*PACKERS, "zst"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_what_comes_before_a_cut_is_kept(tmp_path: Path, kind: str, packer: str) -> None:
    """But for what its decompressor and its buffer hold: 128 KiB, of bz2 a block of 900 kB."""
    texts = [f"{number} " + "".join(random.Random(number).choices("abcdefgh ", k=1000)) for number in range(2000)]
    if kind == "csv":
        content = "text\n" + "\n".join(texts)
    else:
        records = [json.dumps({"text": text}) for text in texts]
        content = "\n".join(records) if kind == "jsonl" else f"[{','.join(records)}]"
    packed = zst(content.encode()) if packer == "zst" else PACKERS[packer](content.encode())
    (tmp_path / f"a.{kind}.{packer}").write_bytes(packed[: len(packed) * 3 // 4])
    found, report = written(tmp_path / f"a.{kind}.{packer}", tmp_path / "out")
    assert found == texts[: len(found)]
    assert len(found) > 1500 - (1000 if packer == "bz2" else 270)
    [(reason, [place])] = report.examples.items()
    assert reason == "compressed file cut off or damaged, its rest unread after"
    assert place == f"a.{kind}.{packer}:{len(found) + (kind == 'csv')}"


def test_what_is_no_file_of_text_is_counted_and_not_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "real").mkdir(parents=True)
    (folder / "real" / "a.jsonl").write_text('{"text": "one"}\n')
    os.mkfifo(folder / "pipe.jsonl")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.jsonl").write_text('{"text": "two"}\n')
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "round").symlink_to(folder)
    found, report = written(folder, tmp_path / "out")
    assert found == ["two", "one"], "a folder that is linked is read, but not from inside of it"
    assert report.examples == {"file of another kind": ["pipe.jsonl"]}
    # What should be there and is not is no such thing.
    (folder / "lost.jsonl").symlink_to(tmp_path / "gone")
    with pytest.raises(CorpusError, match=r"cannot read .*lost\.jsonl"):
        written(folder, tmp_path / "again")


def test_equal_names_in_sub_folders_are_files_of_their_own(tmp_path: Path) -> None:
    for place in ("a/x", "b/x", "b/c/x"):
        path = tmp_path / "folder" / f"{place}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"text": place}) + "\nbroken\n")
    found, report = written(tmp_path / "folder", tmp_path / "out")
    assert found == ["a/x", "b/c/x", "b/x"]
    assert report.examples == {"broken JSON line": ["a/x.jsonl:2", "b/c/x.jsonl:2", "b/x.jsonl:2"]}
    members = tuple(MixtureSource(source=str(tmp_path / "folder" / name), weight=0.5) for name in "ab")
    write_corpus(Corpus(mixture=members, validation_fraction=0, test_fraction=0), tmp_path / "mixed")
    assert list(read_documents(tmp_path / "mixed", "train")) == found


def test_bytes_that_are_not_utf8_cost_their_record(tmp_path: Path) -> None:
    folder = tmp_path / "bytes"
    folder.mkdir()
    latin = "café".encode("latin-1")
    (folder / "a.jsonl").write_bytes(b'{"text": "kept 1"}\n{"text": "' + latin + b'"}\n{"text": "kept 2"}\n')
    (folder / "b.json").write_bytes(b'[{"text": "' + latin + b'"}, {"text": "kept 3"}]')
    (folder / "c.csv").write_bytes(b"text\n" + latin + b"\nkept 4\n")
    (folder / "d.jsonl").write_text('{"text": "half of a pair: \\ud800"}\n{"text": "kept 5"}\n')
    found, report = written(folder, tmp_path / "out")
    assert found == [f"kept {number}" for number in range(1, 6)]
    assert report.examples == {"invalid UTF-8": ["a.jsonl:2", "b.json:1", "c.csv:2", "d.jsonl:1"]}


def long_rows(kind: str, long: int) -> Iterator[bytes]:
    """Two short records around one of so many bytes, in pieces of a megabyte."""
    begin, before, after, end = {
        "jsonl": (b"", b'{"text": "', b'"}\n', b""),
        "json": (b"[", b'{"text": "', b'"}', b"]"),
        "csv": (b"text\n", b'"', b'"\n', b""),
    }[kind]
    between = b"," if kind == "json" else b""
    # Line ends, quotes and brackets as each format writes them inside a text.
    filling = {"jsonl": rb"\n\"[{", "json": rb"\n\\\"[{", "csv": b'\n""[{'}[kind]
    piece = filling * (2**20 // len(filling))
    yield begin + before + b"short" + after + between + before
    for _ in range(long // len(piece)):
        yield piece
    yield after + between + before + b"last" + after + end


@pytest.mark.parametrize("kind", ["jsonl", pytest.param("json", marks=pytest.mark.extended), "csv"])
def test_a_row_that_is_too_long_is_passed_over(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}.gz"
    with gzip.open(path, "wb", compresslevel=1) as out:
        out.writelines(long_rows(kind, 8 * 2**20))
    # What is imported with the first document is no part of what a document needs.
    written(path, tmp_path / "first", max_documents=1)
    tracemalloc.start()
    try:
        found, report = written(path, tmp_path / "out", max_document_bytes=1000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == ["short", "last"]
    assert report.skipped == {TOO_LONG: 1}
    assert peak < 7_000_000


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_rows_of_columns_are_left_out_unread(tmp_path: Path, kind: str) -> None:
    table = pa.table({"text": ["short", "y" * 5_000_000, None, "last"]})
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(str(path), table.schema) as out:
            out.write_table(table)
    written(path, tmp_path / "first", max_documents=1)
    tracemalloc.start()
    try:
        found, report = written(path, tmp_path / "out", max_document_bytes=1000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == ["short", "last"]
    assert report.examples == {TOO_LONG: [f"a.{kind}:2"], "field 'text' is no text": [f"a.{kind}:3"]}
    assert peak < 3_000_000


CUT_MEANWHILE = """
import os, sys
from pathlib import Path
from calm_bench.config import Corpus
from calm_bench.corpora.base import CorpusError, Skipped
from calm_bench.corpora.local import SOURCE
from calm_bench.corpora.split_files import read_batches

path = Path(sys.argv[1])
split = sys.argv[2] == "split"
read = read_batches(path) if split else SOURCE.documents(Corpus(source=str(path)), Skipped())
next(read)
os.truncate(path, path.stat().st_size // 2)
try:
    for one in read:
        str(one)
except CorpusError as error:
    sys.exit(f"refused: {error}")
"""


@pytest.mark.parametrize("layout", ["file", "stream", "split"])
def test_an_arrow_file_that_is_cut_while_it_is_read_is_refused_by_name(tmp_path: Path, layout: str) -> None:
    """Such a file is mapped: what is gone would end the process by SIGBUS."""
    path = tmp_path / "a.arrow"
    table = pa.table({"text": [f"{number} " + "y" * 100 for number in range(30_000)]})
    with (pa.ipc.new_stream if layout == "stream" else pa.ipc.new_file)(str(path), table.schema) as out:
        out.write_table(table, max_chunksize=None if layout == "file" else 3000)
    whole = path.read_bytes()
    ended = subprocess.run([sys.executable, "-c", CUT_MEANWHILE, str(path), layout], capture_output=True, text=True)
    assert f"{path} " in ended.stderr
    assert "became shorter while it was read" in ended.stderr
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1), ended.stderr
    assert ("bring the whole file back, and run again" in ended.stderr) == (layout != "split")
    path.write_bytes(whole)
    if layout != "split":
        assert len(list(SOURCE.documents(Corpus(source=str(path)), Skipped()))) == 30_000


def test_long_rows_of_parquet_are_held_a_few_at_a_time(tmp_path: Path) -> None:
    texts = [f"{number} " + "y" * 1_000_000 for number in range(60)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", compression="none", use_dictionary=False)
    before = pa.total_allocated_bytes()
    peaks = []
    for document in SOURCE.documents(Corpus(source=str(tmp_path / "a.parquet")), Skipped()):
        peaks.append(pa.total_allocated_bytes() - before)
        assert document.text == texts[len(peaks) - 1]
    assert len(peaks) == 60
    # A page, which is as long as its writer made it, here all of the rows; and of these some 16 MB.
    assert max(peaks) < 90_000_000


def test_a_text_that_is_a_row_group_of_its_own_is_left_out_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["short", "y" * 3_000_000, None, "x" * 1500, "last"]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=1)
    read: list[int] = []
    batches = pq.ParquetFile.iter_batches

    def noted(self: pq.ParquetFile, rows: int, groups: list[int], columns: list[str]) -> Iterator[Any]:
        read.extend(groups)
        return batches(self, rows, groups, columns)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", noted)
    found, report = written(tmp_path / "a.parquet", tmp_path / "out", max_document_bytes=1000)
    assert found == ["short", "last"]
    places = {TOO_LONG: ["a.parquet:2", "a.parquet:4"], "field 'text' is no text": ["a.parquet:3"]}
    assert report.examples == places
    assert read == [0, 2, 3, 4]


@pytest.mark.parametrize("seed", range(20))
def test_json_values_around_one_that_is_too_long(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_values_module, "PIECE_BYTES", 3)
    generator = random.Random(seed)
    # A text that begins with an array is that array.
    values: list[Any] = [0]
    for number in range(12):
        text = "".join(generator.choices('a"\\[]{},\n ü', k=generator.choice([3, 5, 300])))
        values.append(generator.choice([text, {"text": text}, [text, {"a": [text]}]]))
        values.append(number)
    expected = [TooLong if len(json.dumps(value, ensure_ascii=False)) > 200 else value for value in values]
    assert TooLong in expected
    for text in (json.dumps(values, ensure_ascii=False), "\n".join(json.dumps(v, ensure_ascii=False) for v in values)):
        found = list(json_values(io.BytesIO(text.encode()), 200))
        # A value of about the limit may be held whole before it is known to be too long.
        assert len(found) == len(values)
        for value, wanted in zip(found, expected, strict=True):
            assert value == wanted or (wanted is TooLong and value in values)
        assert TooLong in found


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("seed", range(20))
def test_csv_rows_around_one_that_is_too_long(seed: int, end: str) -> None:
    generator = random.Random(seed)
    rows = [
        ["".join(generator.choices('a",\n ü', k=generator.choice([1, 5, 300]))) for _ in range(2)] for _ in range(30)
    ]
    out = io.StringIO(newline="")
    sizes = []
    writer = csv.writer(out, lineterminator=end)
    for row in rows:
        before = out.tell()
        writer.writerow(row)
        sizes.append(len(out.getvalue()) - before)
    text = out.getvalue()
    assert [row.values for row in csv_rows(io.StringIO(text, newline=""))] == rows
    wanted = [None if size > 200 else row for size, row in zip(sizes, rows, strict=True)]
    assert None in wanted
    found = [row for row in csv_rows(io.StringIO(text, newline=""), 200) if row.values != []]
    assert [row.values for row in found] == wanted


def test_a_csv_that_ends_inside_a_quote_ends_there() -> None:
    for text in ('a\n"b', 'a\n"' + "b\n" * 300):
        rows = list(csv_rows(io.StringIO(text, newline=""), 100))
        assert rows[0].values == ["a"]
        assert len(rows) == 2


STAGES = r"""
import re, sys
from pathlib import Path
from calm_bench.config import Corpus, Tokens
from calm_bench.corpora import write_corpus
from calm_bench.tokens import write_tokens
source, out, *stages = sys.argv[1:]
report = write_corpus(Corpus(source=source), out + "/corpus")
if "tokens" in stages:
    write_tokens(Tokens(), out + "/corpus", out + "/tokens")
# What getrusage tells begins with the process that started this one.
kib = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]
print(sum(report.documents.values()), int(kib) // 1024)
"""


def peak_of(source: Path, out: Path, *stages: str) -> tuple[int, int]:
    """Documents, and the peak memory in MiB of a process that makes the corpus, and ``tokens`` where they are named."""
    command = [sys.executable, "-c", STAGES, str(source), str(out), *stages]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    documents, peak = found.stdout.split()
    return int(documents), int(peak)


def test_a_large_row_group_is_not_held(tmp_path: Path) -> None:
    """Of texts that do not compress, so that what is read of the file is as much as the texts."""
    length, count = 3000, 50_000
    letters = np.random.default_rng(0).integers(97, 122, length * count, dtype=np.uint8)
    bounds = np.arange(0, length * (count + 1), length, dtype=np.int32)
    texts = pa.Array.from_buffers(pa.string(), count, [None, pa.py_buffer(bounds), pa.py_buffer(letters)])
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=count)
    assert pq.read_metadata(tmp_path / "a.parquet").num_row_groups == 1
    (tmp_path / "few.jsonl").write_text("".join(f'{{"text": "{number}"}}\n' for number in range(100)))
    documents, peak = peak_of(tmp_path / "a.parquet", tmp_path / "out")
    assert documents == count
    assert peak - peak_of(tmp_path / "few.jsonl", tmp_path / "few")[1] < 120


def test_a_giant_of_arrow_is_not_read(tmp_path: Path) -> None:
    """Whoever takes it out of its record batch copies it."""
    peaks = []
    for size in (1, 100_000_000):
        table = pa.table({"text": [*(f"a text {number}" for number in range(100)), "x" * size]})
        path = tmp_path / f"{size}.arrow"
        with pa.ipc.new_file(str(path), table.schema) as out:
            out.write_table(table)
        del table
        command = [sys.executable, "-c", STAGES.replace("source=source", "source=source, max_document_bytes=10**6")]
        found = subprocess.run([*command, path, tmp_path / str(size)], check=True, capture_output=True, text=True)
        peaks.append(int(found.stdout.split()[1]))
    assert peaks[1] - peaks[0] < 40


@pytest.mark.long
@pytest.mark.parametrize(("rows", "most"), [(201, 1800), (1, 250)], ids=["among others", "alone"])
def test_a_giant_of_parquet_takes_three_times_itself_or_nothing(tmp_path: Path, rows: int, most: int) -> None:
    """Whatever its page holds is read with it: what pyarrow reads of a page, and unpacks, is held whole."""
    texts = [f"a text {number}" for number in range(100)]
    table = pa.table({"text": [*texts, "x" * 500_000_000, *texts]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=rows)
    del table
    command = [sys.executable, "-c", STAGES.replace("source=source", "source=source, max_document_bytes=10**6")]
    found = subprocess.run(
        [*command, tmp_path / "a.parquet", tmp_path / "out"], check=True, capture_output=True, text=True
    )
    documents, peak = map(int, found.stdout.split())
    assert documents == 200
    assert peak < most


@pytest.mark.parametrize(("millions", "most"), [(0.5, 130), pytest.param(10, 600, marks=pytest.mark.long)])
def test_tiny_documents_fit_into_memory(tmp_path: Path, millions: float, most: int) -> None:
    """MiB above those of a process that makes tokens of few documents: what it imports takes more here, less there."""
    count = int(millions * 1e6)
    with (tmp_path / "a.jsonl").open("w") as out:
        for begin in range(0, count, 100_000):
            out.write("".join(f'{{"text": "{number:x}"}}\n' for number in range(begin, begin + 100_000)))
    (tmp_path / "few.jsonl").write_text("".join(f'{{"text": "{number}"}}\n' for number in range(100)))
    documents, peak = peak_of(tmp_path / "a.jsonl", tmp_path / "out", "tokens")
    assert documents == count
    assert peak - peak_of(tmp_path / "few.jsonl", tmp_path / "few", "tokens")[1] < most


@pytest.mark.parametrize(
    ("content", "texts", "left_out"),
    [
        ("id,text\n1,Hello, world\n2,kept\n", ["kept"], {"row of more values than names": 1}),
        ('text,id\nkept,1\n"open,2\nlost,3\n', ["kept"], {"quote that never closes, the rest of its file unread": 1}),
        ('text,id\nan "inch" of it,1\n5" wide,2', ['an "inch" of it', '5" wide'], {}),
        ('text,id\r\n"two\r\nlines",1\r\n"last",2', ["two\r\nlines", "last"], {}),
        ("\ntext,id\nfirst,1\n\nsecond,2\n\n", ["first", "second"], {}),
        ("\ufeff \t\r\n\r\ntext\r\nfirst\r\n", ["first"], {}),
        ("\rtext\rfirst\r", ["first"], {}),
    ],
)
def test_rows_of_csv_that_cannot_be_meant(
    tmp_path: Path, content: str, texts: list[str], left_out: dict[str, int]
) -> None:
    (tmp_path / "a.csv").write_bytes(content.encode())
    config = Corpus(source=str(tmp_path / "a.csv"), validation_fraction=0, test_fraction=0)
    report = write_corpus(config, tmp_path / "out")
    assert sorted(read_documents(tmp_path / "out", "train")) == sorted(texts)
    assert report.skipped == left_out


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("text,id,text", "names the field 'text' 2 times"),
        ("id;text", r"separates its fields by ';'.*delimiter=\";\""),
        ("id\ttext", r"separates its fields by '\\t'.*delimiter=\"\\t\""),
    ],
)
def test_a_header_that_names_no_field_once(tmp_path: Path, header: str, message: str) -> None:
    path = tmp_path / "a.csv"
    sign = next(sign for sign in ";\t," if sign in header)
    path.write_text(f"{header}\n{sign.join(['1', 'a', '3'][: header.count(sign) + 1])}\n")
    config = Corpus(source=str(path), validation_fraction=0, test_fraction=0)
    with pytest.raises(CorpusError, match=message) as told:
        write_corpus(config, tmp_path / "out")
    if "python -c" in str(told.value):
        path.write_text(f'{header}\n1{sign}"a; b,\tc"\n')
        command = str(told.value).partition("commas: python")[2].partition(" writes it so")[0]
        command = command.replace("OLD", str(path)).replace("NEW", str(tmp_path / "new.csv"))
        subprocess.run(f"{shlex.quote(sys.executable)}{command}", shell=True, check=True)
        write_corpus(config.model_copy(update={"source": str(tmp_path / "new.csv")}), tmp_path / "out")
        assert list(read_documents(tmp_path / "out", "train")) == ["a; b,\tc"]


def test_how_csv_is_read_is_part_of_its_identity(tmp_path: Path) -> None:
    for name in ("a.csv", "b.jsonl"):
        (tmp_path / name).write_text("text\n")
    found = [corpus_dependencies(Corpus(source=str(tmp_path / name))) for name in ("a.csv", "b.jsonl")]
    assert [one.get("csv_reader") for one in found] == [2, None]


@pytest.mark.parametrize("head", ["\n", " \t\r\n", "\ufeff\n"])
@pytest.mark.parametrize("name", ["b.csv", "b.csv.gz"])
def test_a_header_behind_blank_lines_is_part_of_the_identity(tmp_path: Path, name: str, head: str) -> None:
    content = f"{head}text\nfound\n".encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    config = Corpus(source=str(tmp_path), validation_fraction=0, test_fraction=0)
    # No row of it was read before.
    assert corpus_dependencies(config)["csv_reader"] == 3
    (tmp_path / "c.csv").write_text("text\nanother\n")
    assert corpus_dependencies(config)["csv_reader"] == 3
    (part,) = SOURCE.divide(config, Skipped())
    assert ["'csv_reader': 3" in digest for _, digest, *_ in SOURCE.part_digest(config, part)["spans"]] == [True, False]


PACKED_BY = {"gz": "gzip", "xz": "xz", "bz2": "bzip2", "zst": "zstd"}


@pytest.mark.parametrize("packer", [*PACKERS, "zst"])
@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv"])
def test_a_file_that_is_not_packed_as_its_name_says_is_named_for_what_it_is(
    tmp_path: Path, kind: str, packer: str
) -> None:
    text = '{"text": "one é"}\n' * 99
    pack = zst if packer == "zst" else PACKERS[packer]
    other, pack_other = ("xz", PACKERS["xz"]) if packer == "gz" else ("gz", PACKERS["gz"])
    said = {
        f"plain.{kind}.{packer}": (
            text.encode(),
            f"text that is not packed by {PACKED_BY[packer]}, .* ends in .{packer}",
        ),
        f"other.{kind}.{packer}": (
            pack_other(text.encode()),
            f"packed by {PACKED_BY[other]} .*let its name end in .{other}",
        ),
        f"packed.{kind}": (pack(text.encode()), f"does not say: let it end in .{kind}.{packer}"),
    }
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, (content, message) in said.items():
        (tmp_path / name).write_bytes(content)
        (folder / name).write_bytes(content)
        with pytest.raises(CorpusError, match=f"{name} is .*{message}"):
            written(tmp_path / name, tmp_path / "never")
    (folder / "kept.jsonl").write_text('{"text": "kept"}\n')
    found, report = written(folder, tmp_path / "out")
    assert found == ["kept"]
    assert sorted(place for places in report.examples.values() for place in places) == sorted(said)


def test_an_archive_under_the_name_of_a_text_is_unpacked_first(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"PK\x03\x04\x14\x00\x00\x00\x08\x00")
    with pytest.raises(CorpusError, match=r"a\.txt is compressed: unpack it first, with `unzip -p FILE > NEW`"):
        written(tmp_path / "a.txt", tmp_path / "out")


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl"])
def test_lines_that_end_in_cr_alone_are_named_and_converted_as_told(tmp_path: Path, name: str) -> None:
    """They were one line: "broken JSON line", or a text with too few documents."""
    lines = [json.dumps({"text": f"text {number}"}) for number in range(40)]
    content = "".join(f"{line}\r" for line in lines).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(CorpusError, match=rf"{name} is text whose lines end in CR alone") as refused:
        written(tmp_path / name, tmp_path / "never")
    told = re.search(r"`(tr .*) < FILE > NEW`", str(refused.value))
    assert told is not None
    new = tmp_path / "new.jsonl"
    new.write_bytes(subprocess.run(shlex.split(told[1]), input=content, capture_output=True, check=True).stdout)
    found, _ = written(new, tmp_path / "out")
    assert found == [f"text {number}" for number in range(40)]


def test_a_cr_among_other_line_ends_is_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\rtwo " + b"long " * 300 + b"\n\nthree\r\n")
    found, _ = written(tmp_path / "a.txt", tmp_path / "out")
    assert "one\rtwo" in "".join(found)
