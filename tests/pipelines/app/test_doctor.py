from __future__ import annotations

import http.server
import json
import re
import threading
from pathlib import Path
from typing import Literal

import pytest
from typer.testing import CliRunner

from calm_bench import bf16_speed
from pipelines.app import doctor
from pipelines.app.cli import app


@pytest.mark.slow
def test_a_machine_that_passes_these_tests_is_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    findings = {finding.topic: finding for finding in doctor.examine(tmp_path / "runs")}
    assert [topic for topic, finding in findings.items() if finding.level == "error"] == []
    assert "ran a stage" in findings["ray"].text
    assert not (tmp_path / "runs").exists()


def test_a_store_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (finding,) = doctor._store(tmp_path / "file" / "runs")
    assert finding.level == "error"
    assert "--store" in finding.text


def test_a_wrong_or_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ["torch==0.1", "no-such-distribution>=1", 'pytest; extra == "dev"']
    monkeypatch.setattr(doctor, "requires", lambda _: needed)
    (finding,) = doctor._packages()
    assert finding.level == "error"
    assert "torch==0.1 is needed" in finding.text
    assert "no-such-distribution>=1 is missing" in finding.text
    assert "pytest" not in finding.text


@pytest.mark.parametrize(
    ("ratio", "advice"),
    [
        (1.9, "1.9 times .*training.precision=bf16, make trainings on it faster"),
        (0.03, "0.03 times .*leave .* at auto"),
    ],
)
def test_whether_bf16_pays_on_this_cpu_is_said(ratio: float, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bf16_speed.bf16_speedup() > 0
    monkeypatch.setattr(bf16_speed, "bf16_speedup", lambda: ratio)
    (finding,) = doctor._bf16()
    assert finding.level == "ok"
    assert re.search(advice, finding.text)


def test_a_tracking_server_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    address = f"127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{address}")
    (finding,) = doctor._tracking(tmp_path)
    thread.join()
    server.server_close()
    assert (finding.level, "answers" in finding.text) == ("ok", True)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@{address}")
    (finding,) = doctor._tracking(tmp_path)
    assert finding.level == "warning"
    assert "secret" not in finding.text


@pytest.mark.parametrize("level", ["ok", "error"])
def test_findings_as_json(monkeypatch: pytest.MonkeyPatch, level: Literal["ok", "error"]) -> None:
    found = [doctor.Finding("python", "ok", "3.12"), doctor.Finding("store", level, "runs [is a file]")]
    monkeypatch.setattr(doctor, "examine", lambda _: iter(found))
    done = CliRunner().invoke(app, ["doctor", "--json"])
    told = json.loads(done.output)
    assert [(one["topic"], one["level"], one["text"]) for one in told["findings"]] == [
        ("python", "ok", "3.12"),
        ("store", level, "runs [is a file]"),
    ]
    assert told["failed"] == (level == "error") == (done.exit_code == 1)
