"""Parts of work: published whole or not at all, whatever kills the process in between."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from calm_bench.published_parts import PARTIAL, PARTS, RECORD, link, publish_part, remove_unfinished_parts

SCRIPT = """
import signal, sys
from pathlib import Path
from calm_bench.config import Corpus, Tokens
from calm_bench.corpora import input_parts, local, split_files, write_corpus
from calm_bench.tokens import token_part, write_tokens

input_parts.PART_BYTES = local.PART_BYTES = 100_000
split_files.BATCH_BYTES, token_part.PART_BATCHES = 20_000, 1
source, folder, killed_after_s = sys.argv[1:]
# By the time that it has worked, however long a busy machine lets it wait; the signal ends it as SIGKILL would.
signal.setitimer(signal.ITIMER_PROF, float(killed_after_s))
corpus = Corpus(source=source)
tokens = Tokens(tokenizer="bpe", vocab_size=300, shard_tokens=60_000)
write_corpus(corpus, Path(folder, "corpus"))
write_tokens(tokens, Path(folder, "corpus"), Path(folder, "tokens"))
"""


def finished_files(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not {PARTS, PARTIAL} & set(Path(name).parts)}


def run(source: Path, folder: Path, kill_after_s: float = 0.0) -> bool:
    """Whether corpus and tokens were written before the process was killed."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(source), str(folder), str(kill_after_s)], check=False)
    assert done.returncode in (0, -signal.SIGPROF)
    return done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("most_kills", [6, pytest.param(40, marks=pytest.mark.extended)])
def test_killed_at_any_moment_the_same_files_come_of_it(tmp_path: Path, most_kills: int) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        texts = [f"document {number} of {name} " + f"naïve word{number % 50} " * 40 for number in range(900)]
        (source / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert run(source, tmp_path / "expected")
    generator = random.Random(11)
    out = tmp_path / "out"
    kills = published = 0
    while kills < most_kills and not run(source, out, generator.uniform(0.02, 0.4)):
        kills += 1
        # Nothing that was published is ever lost.
        before, published = published, len(list(out.glob(f"*/{PARTS}/*/{RECORD}")))
        assert published >= before
    assert kills > 2
    assert run(source, out)
    assert finished_files(out) == finished_files(tmp_path / "expected")
    assert not [*out.glob(f"*/{PARTIAL}/*")]


def make(folder: Path) -> dict[str, int]:
    (folder / "inner").mkdir()
    (folder / "inner" / "file").write_text("content")
    return {"count": 7}


def refuse(folder: Path) -> dict[str, int]:
    raise AssertionError("it is there already")


def test_a_part_is_made_once_and_known_by_all_that_it_depends_on(tmp_path: Path) -> None:
    published = publish_part(tmp_path, "one", {"seed": 0}, make)
    file = published.folder / "inner" / "file"
    assert file.read_text() == "content"
    assert published.found == {"count": 7}
    assert published.files == {"inner/file": {"bytes": 7, "sha256": sha256(b"content").hexdigest()}}
    assert publish_part(tmp_path, "one", {"seed": 0}, refuse) == published
    with pytest.raises(AssertionError):
        publish_part(tmp_path, "one", {"seed": 1}, refuse)
    assert publish_part(tmp_path, "one", {"seed": 0}, refuse) == published
    file.write_text("CONTENT")
    assert publish_part(tmp_path, "one", {"seed": 0}, make) == published
    assert file.read_text() == "content"
    assert not list((tmp_path / PARTIAL).iterdir())


def test_who_begins_again_removes_what_a_kill_left(tmp_path: Path) -> None:
    for name in (".corpus.json.a1b2c3d4", "kept.json"):
        (tmp_path / name).write_text("half")
    (tmp_path / PARTIAL / "part").mkdir(parents=True)
    remove_unfinished_parts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.json"]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        publish_part(tmp_path, "one", 0, refuse)
    assert not list((tmp_path / PARTIAL).iterdir())
    assert not (tmp_path / PARTS).exists()


def test_of_two_workers_with_one_part_the_first_stands(tmp_path: Path) -> None:
    def slow(folder: Path) -> dict[str, int]:
        publish_part(tmp_path, "one", 0, make)
        return make(folder)

    published = publish_part(tmp_path, "one", 0, slow)
    assert published.found == {"count": 7}
    assert publish_part(tmp_path, "one", 0, refuse) == published
    assert not list((tmp_path / PARTIAL).iterdir())


def test_a_name_is_given_again(tmp_path: Path) -> None:
    for content in ("one", "two"):
        (tmp_path / content).write_text(content)
        link(tmp_path / content, tmp_path / "folder" / "name")
        assert (tmp_path / "folder" / "name").read_text() == content
    assert (tmp_path / "one").read_text() == "one"
