"""A folder at HTTP is all that its pages link, or an error: nothing of it is lost without a word."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from calm_bench.config import Corpus
from calm_bench.corpora import CorpusError, corpus_dependencies, read_documents, write_corpus
from calm_bench.corpora import remote_file as remote_file_module
from calm_bench.corpora.remote import find_remote
from tests.calm_bench.corpora.http_files import HttpFiles, serving

pytestmark = pytest.mark.slow

ODD_NAMES = (
    "a#b",
    "a?b",
    "50%",
    "100%25",
    "a b",
    "a&amp;b",
    "it's",
    'say "no"',
    "a+b",
    "a:b",
    "a;b=c,d",
    "naïve 数",
    "~[1]",
)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpFiles]:
    monkeypatch.setattr(remote_file_module, "PAUSES_S", (0.01, 0.02))
    with serving(tmp_path) as files:
        yield files


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"text": text}) + "\n")


def names(source: str) -> list[str]:
    return [file.name for file in find_remote(source).files]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port: int = closed.getsockname()[1]
    return port


@pytest.mark.parametrize("fault", ["reset", "404", "403", "500", "moved to a server that is away"])
@pytest.mark.parametrize("folder", ["texts/", "texts/deep/", "texts/deep/deeper/"])
def test_a_page_that_does_not_answer_is_named(server: HttpFiles, folder: str, fault: str) -> None:
    for name in ("a.jsonl", "deep/b.jsonl", "deep/deeper/c.jsonl"):
        write(server.root / "texts" / name, name)
    assert names(f"{server.url}/texts/") == ["a.jsonl", "deep/b.jsonl", "deep/deeper/c.jsonl"]
    if fault.startswith("moved"):
        server.moved[f"/{folder}"] = f"http://127.0.0.1:{closed_port()}/"
    else:
        server.refused[f"/{folder}"] = 0 if fault == "reset" else int(fault)
    with pytest.raises(CorpusError, match=rf"cannot read {server.url}/{folder}: .*see whether the server"):
        corpus_dependencies(Corpus(source=f"{server.url}/texts/"))
    server.refused.clear()
    server.moved.clear()
    assert len(names(f"{server.url}/texts/")) == 3


def test_a_server_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_file_module, "PAUSES_S", (0.01,))
    with pytest.raises(CorpusError, match=r"cannot read http://127.0.0.1:\d+/texts/: Client"):
        find_remote(f"http://127.0.0.1:{closed_port()}/texts/")


def test_a_page_that_fails_is_asked_for_again(server: HttpFiles) -> None:
    write(server.root / "texts" / "deep" / "a.jsonl", "a")
    server.failing = 2
    assert names(f"{server.url}/texts/") == ["deep/a.jsonl"]
    assert server.failing == 0


def test_links_that_lead_elsewhere_are_not_followed(server: HttpFiles) -> None:
    write(server.root / "texts" / "a.jsonl", "a")
    write(server.root / "texts" / "deep" / "b.jsonl", "b")
    server.pages["/texts/"] = f"""
        <a href="?C=N;O=D">Name</a> <a href="/">Parent Directory</a> <a href="..">up</a> <a href="./">here</a>
        <a href="#top">top</a> <a href="/secret/">no</a> <a href="../secret/">no</a> <a href="/texts-old/">no</a>
        <a href="http://127.0.0.1:{closed_port()}/texts/other/">no</a> <a href="ftp://127.0.0.1/pub/">no</a>
        <a href=".git/">hidden</a> <a href="http://[">bad</a> <a>none</a> <![if x]> <a href="mailto:me@here.org">me</a>
        <a href="deep/">deep</a> <a href="{server.url}/texts/deep/">deep again</a> <a href="a.jsonl">a</a>
        <a href="a.jsonl?raw=1">raw</a> <a href="a.jsonl#L1">a</a>
    """
    server.refused |= {"/secret/": 403, "/texts-old/": 403, "/texts/.git/": 403, "/": 403}
    assert names(f"{server.url}/texts/") == ["a.jsonl", "deep/b.jsonl"]
    assert server.requests.count("GET /texts/") == server.requests.count("GET /texts/deep/") == 1


@pytest.mark.parametrize(
    "link",
    [
        '<a href="./a%20b.jsonl">',
        "<a href='a%20b.jsonl'>",
        "<a href=a%20b.jsonl>",
        '<a class="x"" href="a%20b.jsonl">',
        '<A\nclass="x > y" title=\'"\' HREF = "/texts/a b.jsonl">',
        '<a href="http://HOST/texts/a%20b.jsonl">',
        '<a href="https://HOST/texts/a%20b.jsonl">',
        '<a href="//HOST/texts/a%20b.jsonl">',
        '<a href="/%74exts/a%20b.jsonl">',
        "<pre>http://HOST/texts/a%20b.jsonl</pre>",
    ],
)
def test_links_of_every_form(server: HttpFiles, link: str) -> None:
    write(server.root / "texts" / "a b.jsonl", "a")
    server.pages["/texts/"] = link.replace("HOST", server.url.removeprefix("http://"))
    assert names(f"{server.url}/texts/") == names(f"{server.url}/texts") == ["a b.jsonl"]


def test_files_of_one_name_in_two_folders_that_one_page_links(server: HttpFiles) -> None:
    for name in ("x/a.jsonl", "y/a.jsonl"):
        write(server.root / "texts" / name, name)
    server.pages["/texts/"] = '<a href="y/a.jsonl">y</a> <a href="x/a.jsonl">x</a>'
    assert names(f"{server.url}/texts/") == ["x/a.jsonl", "y/a.jsonl"]


def test_a_page_that_links_to_itself_for_ever_is_named(server: HttpFiles) -> None:
    write(server.root / "texts" / "a.jsonl", "a")
    (server.root / "texts" / "loop").symlink_to(".")
    with pytest.raises(CorpusError, match=r"more than 32 deep.*/loop/loop/.*does one link to itself\? Name a folder"):
        find_remote(f"{server.url}/texts/")


def test_a_page_that_cannot_be_understood_is_an_error(server: HttpFiles) -> None:
    server.pages["/texts/"] = '<![x y]> <a href="a.jsonl">a</a>'
    with pytest.raises(CorpusError, match=r"cannot read the links of http://.*/texts/: unknown"):
        find_remote(f"{server.url}/texts/")


def test_pages_of_any_size_are_read_in_their_time(server: HttpFiles) -> None:
    """Quotes that nobody closes: a pattern that tries all ways to pair them would take for ever."""
    write(server.root / "texts" / "a.jsonl", "a")
    server.pages["/texts/"] = '<a href="a.jsonl">a</a>' + "<a x'\"" * 2000 + '<a class="x"" href="a.jsonl">a</a>'
    assert names(f"{server.url}/texts/") == ["a.jsonl"]


def test_an_empty_folder_below_is_no_fault(server: HttpFiles) -> None:
    write(server.root / "texts" / "a.jsonl", "a")
    (server.root / "texts" / "empty").mkdir()
    assert names(f"{server.url}/texts/") == ["a.jsonl"]
    with pytest.raises(CorpusError, match=r"/texts/empty/ has no file whose name ends in"):
        find_remote(f"{server.url}/texts/empty/")


def test_a_file_whose_name_says_no_kind(server: HttpFiles) -> None:
    server.refused["/text.xml/"] = 404
    with pytest.raises(CorpusError, match=r"cannot read .*/text.xml/: .* 404.*If it is a file: .* end in .txt"):
        find_remote(f"{server.url}/text.xml")


def test_what_is_no_page_is_not_fetched_and_is_counted(server: HttpFiles) -> None:
    write(server.root / "texts" / "a.jsonl", "a")
    (server.root / "large").write_bytes(b"x" * 1_000_000)
    server.pages["/texts/"] = '<a href="a.jsonl">a</a> <a href="export/">all</a>'
    server.moved |= {"/texts/export/": "/large", "/export/": "/large"}
    assert find_remote(f"{server.url}/texts/").others == ["export/"]
    with pytest.raises(CorpusError, match="has no file whose name ends in"):
        find_remote(f"{server.url}/export/")
    assert not server.sent


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(tmp_path: Path, server: HttpFiles, name: str) -> None:
    write(server.root / name / f"{name}.jsonl", "found")
    source = f"{server.url}/"
    assert names(source) == [f"{name}/{name}.jsonl"]
    write_corpus(Corpus(source=source, validation_fraction=0, test_fraction=0), tmp_path / "out")
    assert list(read_documents(tmp_path / "out", "train")) == ["found"]


def test_names_as_a_server_writes_them_that_quotes_little(tmp_path: Path, server: HttpFiles) -> None:
    for name in ("it's.jsonl", "a&b.jsonl", "a:b.jsonl", "c d.jsonl", "d's.jsonl"):
        write(server.root / "texts" / name, name)
    # So does Apache, but for the space.
    server.pages["/texts/"] = """
        <a href="it's.jsonl">i</a> <a href="a&amp;b.jsonl">a</a> <a href="./a:b.jsonl">a</a> <a href="c d.jsonl">c</a>
        <a href=d's.jsonl>d</a>
    """
    assert names(f"{server.url}/texts/") == ["a&b.jsonl", "a:b.jsonl", "c d.jsonl", "d's.jsonl", "it's.jsonl"]
