"""A server of text that goes away while a study reads it: what is kept, and how the study goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calm_bench.corpora import remote_file
from pipelines.execution.events import StageRetried
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


@pytest.mark.parametrize("fault", ["failing", "breaking"])
def test_a_server_that_is_busy_for_a_while_costs_no_trial(
    fault: str,
    tmp_path: Path,
    run: Callable[..., list[TrialOutcome]],
    tiny_study: Callable[..., Study],
    recorder: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Answers of 503 and answers that are cut off, beyond the tries of one request: errors of aiohttp, no OSError."""
    monkeypatch.setattr(remote_file, "PAUSES_S", ())
    lines = "".join(json.dumps({"text": f"{number} {'word ' * 20}"}) + "\n" for number in range(60))
    (tmp_path / "a.jsonl").write_text(lines)
    search = {"parameters": [{"name": "model", "choices": {"token": {"model.kind": "token"}}}]}
    listener = recorder()
    with serving(tmp_path) as server:
        study = tiny_study(corpus={"source": f"{server.url}/a.jsonl"}, search=search)
        setattr(server, fault, 1)
        (trial,) = run(study, listener)
    assert (trial.state, trial.error) == ("complete", None)
    assert listener.kinds_of(StageRetried) == ["corpus"]
