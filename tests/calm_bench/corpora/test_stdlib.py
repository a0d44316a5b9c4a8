"""The offline default: it must be the same text wherever the same Python runs."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from calm_bench.config import Corpus
from calm_bench.corpora import CorpusReport, Skipped, corpus_dependencies, identity_config, read_documents, write_corpus
from calm_bench.corpora.stdlib import SOURCE

pytestmark = pytest.mark.slow

STDLIB = Corpus(source="stdlib")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[CorpusReport, Path]:
    folder = tmp_path_factory.mktemp("stdlib")
    return write_corpus(STDLIB, folder), folder


def test_it_is_real_text_of_the_expected_size_in_all_splits(written: tuple[CorpusReport, Path]) -> None:
    report, _ = written
    assert sum(report.bytes.values()) > 1_000_000
    assert all(report.documents[split] >= 10 for split in ("train", "validation", "test"))
    assert report.python == platform.python_version()
    assert report.filled == []


def test_it_holds_docstrings_and_topics_but_no_tests_and_no_repetition(written: tuple[CorpusReport, Path]) -> None:
    _, folder = written
    documents = [text for split in ("train", "validation", "test") for text in read_documents(folder, split)]
    assert len(set(documents)) == len(documents)
    text = "\n".join(documents)
    assert "Serialize ``obj`` to a JSON formatted ``str``." in text  # json.dumps, a function in a package
    assert 'The "yield" statement' in text  # a topic of pydoc


def test_docstrings_come_in_source_order_without_being_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for left_out in ("test", "site-packages"):
        (tmp_path / left_out / "package").mkdir(parents=True)
        (tmp_path / left_out / "package" / "hidden.py").write_text('"""Not of the library."""')
    (tmp_path / "broken.py").write_text('"""Never parsed."""\ndef :\n')
    (tmp_path / "plain.py").write_text("x = 1\n")
    (tmp_path / "module.py").write_text(
        '"""Of the module."""\nraise SystemExit\nif x:\n    class A:\n        """Of a class."""\n'
        "        async def f(self):\n            '''Of\n               a method.'''\n"
        'try:\n    pass\nexcept E:\n    def g():\n        """Of a function."""\n'
        'def h():\n    """Of the module."""\n'
    )
    monkeypatch.setattr("calm_bench.corpora.stdlib._library", lambda: tmp_path)
    monkeypatch.setattr("calm_bench.corpora.stdlib._topics", lambda: [("NAME", "\nA topic.\n")])
    skipped = Skipped()
    documents = list(SOURCE.documents(STDLIB, skipped))
    assert [document.where for document in documents] == ["module.py", "pydoc topic NAME"]
    assert documents[0].text == "Of the module.\n\nOf a class.\n\nOf\na method.\n\nOf a function.\n"
    assert skipped.counts == {"unparsable module": 1, "module without docstrings": 1, "repeated docstring": 1}
    assert skipped.examples["unparsable module"] == ["broken.py:2"]


def test_its_identity_is_the_python_and_its_sources() -> None:
    dependencies = corpus_dependencies(STDLIB)
    assert dependencies["python"] == platform.python_version()
    assert len(dependencies["sources"]) == 64
    other = Corpus(source="stdlib", markov={"order": 3}, text_field="body", subset="x", revision="y")
    assert identity_config(other) == identity_config(STDLIB)
    assert identity_config(Corpus(source="stdlib", split_seed=1)) != identity_config(STDLIB)
