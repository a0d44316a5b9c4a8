"""A server of text that goes away while a study reads it: what is kept, and how the study goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from calm_bench.corpora import remote_file
from pipelines.study.config import Study
from pipelines.study.trial import TrialOutcome
from tests.calm_bench.corpora.http_files import serving


def test_trials_that_lacked_their_text_are_tried_again_when_asked(
    tmp_path: Path,
    run: Callable[..., list[TrialOutcome]],
    tiny_study: Callable[..., Study],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_file, "PAUSES_S", (0.01,))
    (tmp_path / "texts").mkdir()
    for name in "ab":
        lines = "".join(json.dumps({"text": f"{name} {number} {'word ' * 20}"}) + "\n" for number in range(60))
        (tmp_path / "texts" / f"{name}.jsonl").write_text(lines)
    search = {"parameters": [{"name": "model", "choices": {"token": {"model.kind": "token"}}}]}
    with serving(tmp_path) as server:
        study = tiny_study(corpus={"source": f"{server.url}/texts/"}, search=search)
        server.breaking = 10_000
        (failed,) = run(study)
        assert failed.state == "failed"
        assert f"cannot read {server.url}/texts/a.jsonl" in str(failed.error)
        server.breaking = 0
        (same,) = run(study)
        assert (same.state, same.error) == (failed.state, failed.error)
        (complete,) = run(study, retry_failed=True)
        assert complete.state == "complete"
