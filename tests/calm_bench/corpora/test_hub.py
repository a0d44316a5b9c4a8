"""Data sets of the hub, by a server that speaks as it does: a process is told of it by ``HF_ENDPOINT``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.calm_bench.corpora.hub_server import REVISION, Hub, serving

TEXTS = [f"{number} " * 700 for number in range(400)]
READ = """
import json, sys
from pathlib import Path
from calm_bench.config import Corpus
from calm_bench.corpora import CorpusError, divisible_bytes, input_parts, read_documents, write_corpus
input_parts.PART_BYTES = 500_000
for number, settings in enumerate(json.loads(sys.argv[1])):
    config, out = Corpus(validation_fraction=0, test_fraction=0, **settings), Path(sys.argv[2], str(number))
    try:
        report = write_corpus(config, out)
        found = {"texts": list(read_documents(out, "train")), "skipped": report.skipped}
    except CorpusError as error:
        found = {"error": str(error)}
    print(json.dumps({**found, "bytes": 0 if "error" in found else divisible_bytes(config)}), flush=True)
    sys.stdin.readline()
"""
LOOK = """
import json, sys
from calm_bench.config import Corpus
from calm_bench.corpora import corpus_dependencies
for _ in range(2):
    print(json.dumps(corpus_dependencies(Corpus(source=sys.argv[1]))), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A set of two Parquet files by a card, and one of JSON lines."""
    folder = tmp_path / "hub" / "some" / "set"
    (folder / "english").mkdir(parents=True)
    for name, texts in (("a", TEXTS[:250]), ("b", [*TEXTS[250:], None])):
        table = pa.table({"text": texts, "other": [(text or "")[::-1] for text in texts]})
        path = folder / "english" / f"{name}.parquet"
        pq.write_table(table, path, row_group_size=25, compression="none", use_dictionary=False)
    configs = "configs:\n- config_name: en\n  data_files:\n  - split: train\n    path: english/*.parquet\n"
    (folder / "README.md").write_text(f"---\n{configs}---\n# A set\n")
    lines = tmp_path / "hub" / "some" / "lines"
    lines.mkdir()
    (lines / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:20]))
    with serving(tmp_path / "hub") as found:
        yield found


def started(hub: Hub, tmp_path: Path, code: str, *arguments: str) -> subprocess.Popen[str]:
    """A process for which ``hub`` is the hub."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    environment = {name: value for name, value in environment.items() if name not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, text=True, **pipes)


def test_a_file_that_was_added_since_is_seen(tmp_path: Path, hub: Hub) -> None:
    """The client of the hub keeps what it has listed."""
    process = started(hub, tmp_path, LOOK, "hf://datasets/some/lines")
    assert process.stdin is not None
    assert process.stdout is not None
    before = process.stdout.readline()
    if not before:
        raise AssertionError(process.communicate()[1])
    (hub.root / "some" / "lines" / "more.jsonl").write_text('{"text": "more"}\n')
    process.stdin.write("look again\n")
    process.stdin.flush()
    after = process.stdout.readline()
    process.communicate()
    assert json.loads(after)["url"] == json.loads(before)["url"]
    assert json.loads(after)["versions"] != json.loads(before)["versions"]


def test_parquet_files_at_a_commit(tmp_path: Path, hub: Hub) -> None:
    config = {"source": "hf:some/set", "subset": "en", "revision": REVISION}
    wanted = [config | {"max_documents": 30}, config, config | {"text_field": "txt"}]
    wanted += [config | {"split": "test"}, {"source": "hf:some/lines", "revision": REVISION}]
    process = started(hub, tmp_path, READ, json.dumps(wanted), str(tmp_path / "out"))
    answers: list[dict[str, Any]] = []
    sent = []
    assert process.stdin is not None
    assert process.stdout is not None
    for _ in wanted:
        hub.sent.clear()
        line = process.stdout.readline()
        if not line:
            raise AssertionError(process.communicate()[1])
        answers.append(json.loads(line))
        sent.append(dict(hub.sent))
        process.stdin.write("go on\n")
        process.stdin.flush()
    process.communicate()
    first, whole, no_field, no_split, lines = answers
    assert first["texts"] == TEXTS[:30]
    files = [f"some/set/english/{name}.parquet" for name in ("a", "b")]
    size = {name: (hub.root / name).stat().st_size for name in files}
    assert whole["texts"] == TEXTS
    assert whole["skipped"] == {"field 'text' is no text": 1}
    assert whole["bytes"] == sum(size.values())
    # Half of a file is another column.
    for name in files:
        assert 0.4 * size[name] < sent[1][name] < 0.95 * size[name]
    # Two row groups of ten.
    assert sent[0][files[0]] < 0.4 * size[files[0]]
    assert files[1] not in sent[0]
    assert "did you mean 'text'" in no_field["error"]
    assert "split test" in no_split["error"]
    assert lines.get("texts") == TEXTS[:20], lines
    assert lines["bytes"] == 0


KEEP = "import datasets, sys; datasets.load_dataset('some/lines', revision=sys.argv[1])"


@pytest.mark.slow
def test_another_commit_is_not_taken_for_the_one_that_is_asked_for(tmp_path: Path, hub: Hub) -> None:
    """Without a network datasets gives the latest that it keeps."""
    later = "2" * 40
    with (hub.move_on("some/lines", later) / "train.jsonl").open("a") as lines:
        lines.write(json.dumps({"text": "another text"}) + "\n")
    keeping = started(hub, tmp_path, KEEP, later)
    assert keeping.wait() == 0, keeping.communicate()[1]
    hub.url = ""
    wanted = [{"source": "hf:some/lines", "revision": commit} for commit in (REVISION, later)]
    process = started(
        hub,
        tmp_path,
        f"import os; os.environ['HF_HUB_OFFLINE'] = '1'\n{READ}",
        json.dumps(wanted),
        str(tmp_path / "out"),
    )
    out, errors = process.communicate("go on\n" * 2)
    first, second = map(json.loads, out.splitlines())
    assert f"what the cache here gives without a network is {later}" in first.get("error", errors)
    assert "another text" in second.get("texts", second)
