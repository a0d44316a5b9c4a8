"""The command as a person uses it, in processes of its own: Ray, Optuna, MLflow and the leaderboard, nothing mocked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from calm_bench.overrides import ConfigurationError
from pipelines.app.cli import app
from pipelines.common.numbers import clipped_with_error
from pipelines.scoring.models import find_model
from pipelines.scoring.scoring import score_model
from pipelines.store.store import Store

Command = Callable[..., subprocess.CompletedProcess[str]]

STUDY = """
name: tiny
corpus: {source: markov, markov: {num_documents: 200, document_length: 300}}
autoencoder:
  {latent_size: 8, hidden_size: 32, intermediate_size: 64,
   training: {num_steps: 40, batch_size: 4, sequence_length: 64, warmup_steps: 10}}
model:
  hidden_size: 32
  intermediate_size: 64
  num_layers: 2
  training: {num_steps: 40, batch_size: 4, sequence_length: 64, warmup_steps: 10}
evaluation: {context_length: 64, first_position: 16, position_stride: 16, num_samples: 4}
search:
  parameters:
    - name: model
      choices:
        token: {model.kind: token}
        K=2: {model.chunk_size: 2}
        K=2 narrow: {model.chunk_size: 2, model.head.width: 16}
"""

VARYING = {"wall_time_s", "total_wall_time_s", "tokens_per_second", "generated_tokens_per_second", "model_folder"}
"""What may differ between two runs of the same study."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command")
    (folder / "tiny.yaml").write_text(STUDY)
    return folder


@pytest.fixture(scope="module")
def calm_bench(folder: Path) -> Command:
    """Runs ``calm-bench`` with the given arguments in an empty folder; checks the exit code."""
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-c", "from pipelines.app.cli import main; main()"]
        done = subprocess.run(
            [*program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def on_ray(calm_bench: Command) -> str:
    """Output of the study's first run, on Ray."""
    return calm_bench("run", "tiny.yaml", "--store", "on-ray").stdout


def rows(calm_bench: Command, *arguments: str) -> dict[str, dict[str, Any]]:
    groups = json.loads(calm_bench("leaderboard", "--format", "json", *arguments).stdout)["groups"]
    return {row["label"]: row for group in groups for row in group["entries"]}


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in VARYING}


@pytest.mark.slow
def test_a_run_leaves_leaderboard_picture_and_mlflow_behind(on_ray: str, calm_bench: Command, folder: Path) -> None:
    found = rows(calm_bench, "--store", "on-ray")
    assert set(found) == {"token", "K=2", "K=2 narrow"}
    for row in found.values():
        assert row["brierlm_se"] >= 0
        assert row["training_flops"] > 0
        assert clipped_with_error(row["brierlm"], row["brierlm_se"]) in on_ray
    study = next((folder / "on-ray" / "studies").iterdir())
    for name in ("leaderboard.md", "leaderboard.csv", "leaderboard.png", "study.yaml", "trials.json", "report.html"):
        assert (study / name).stat().st_size > 0
    assert str(study / "leaderboard.png") in on_ray
    assert str(study / "report.html") in on_ray
    assert "language model" in on_ray.partition("Time         ")[2], "estimate against outcome"
    outcome, planned = (json.loads((study / name).read_text()) for name in ("estimate.json", "plan.json"))
    assert outcome["total"]["measured_s"] > 0
    assert outcome["stages"].keys() == planned["estimates"][0]["stages"].keys()
    assert list((folder / "on-ray" / "mlartifacts").rglob("report.html")), "it is an artifact of the study's run"
    link = "http://127.0.0.1:5000/#/experiments/"
    assert (study / "report.html").read_text().count(link) > len(found), "study and trials are linked to their runs"
    autoencoders = list((folder / "on-ray" / "stages" / "autoencoder").iterdir())
    assert len(autoencoders) == 1, "both K=2 models share one autoencoder"


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_mlflow_has_the_same_rows(calm_bench: Command, folder: Path) -> None:
    tracked = rows(calm_bench, "--mlflow", f"sqlite:///{folder / 'on-ray' / 'mlflow.db'}")
    assert tracked == rows(calm_bench, "--store", "on-ray")


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_a_second_run_computes_nothing_and_says_the_same(calm_bench: Command, folder: Path) -> None:
    before = rows(calm_bench, "--store", "on-ray")
    results = sorted((folder / "on-ray" / "stages").glob("*/*/result.json"))
    times = [path.stat().st_mtime_ns for path in results]
    again = calm_bench("run", "tiny.yaml", "--store", "on-ray").stdout
    assert ": started" not in again
    assert "everything is there: the study's 3 trials ended before (3 complete, 0 failed), nothing was run" in again
    assert rows(calm_bench, "--store", "on-ray") == before
    assert sorted((folder / "on-ray" / "stages").glob("*/*/result.json")) == results
    assert [path.stat().st_mtime_ns for path in results] == times
    tracked = rows(calm_bench, "--mlflow", f"sqlite:///{folder / 'on-ray' / 'mlflow.db'}")
    assert tracked == before
    plan = json.loads(calm_bench("plan", "tiny.yaml", "--store", "on-ray", "--json").stdout)
    assert plan["training_flops_to_run"] == 0
    assert {stage["state"] for stage in plan["stages"]} == {"cached"}


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_one_process_gives_the_same_numbers_as_ray_bit_for_bit(calm_bench: Command) -> None:
    calm_bench("run", "tiny.yaml", "--local", "--store", "local", "tracking.enabled=false")
    there, here = rows(calm_bench, "--store", "on-ray"), rows(calm_bench, "--store", "local")
    assert {label: comparable(row) for label, row in here.items()} == {
        label: comparable(row) for label, row in there.items()
    }


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_the_plan_priced_what_the_run_paid(calm_bench: Command) -> None:
    plan = json.loads(calm_bench("plan", "tiny.yaml", "--store", "elsewhere", "--json").stdout)
    found = rows(calm_bench, "--store", "on-ray")
    for trial in plan["trials"]:
        row, model = found[trial["label"]], trial["trainings"]["language_model"]
        assert row["training_flops"] == pytest.approx(model["flops"])
        assert row["parameters"] == model["parameters"]
        assert row["tokens"] == model["tokens"]
        assert row["inference_flops_per_token"] == pytest.approx(trial["inference_flops_per_token"])
        assert row["total_training_flops"] == pytest.approx(trial["training_flops"])
        if "autoencoder" in trial["trainings"]:
            assert row["autoencoder_parameters"] == trial["trainings"]["autoencoder"]["parameters"]


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_eval_repeats_the_score_of_the_run(calm_bench: Command) -> None:
    row = rows(calm_bench, "--store", "on-ray")["K=2"]
    result = json.loads(calm_bench("eval", "tiny/K=2", "--store", "on-ray", "--json").stdout)["brierlm"]["matched"]
    for name in ("brierlm", "brierlm_se", "brier", "brier_se", "protocol_hash", "num_positions"):
        assert result[name] == row[name]


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_a_model_is_found_by_its_folder_and_scored_on_other_text(calm_bench: Command, folder: Path) -> None:
    row = rows(calm_bench, "--store", "on-ray")["K=2"]
    store = Store(folder / "on-ray")
    model = find_model(row["model_folder"], store)
    assert model == find_model("tiny/K=2", store)
    assert model == find_model(str(Path(row["model_folder"]).parent), store)
    other = score_model(model, store, ["corpus.markov.seed=5", "evaluation.max_windows=10"])
    assert other.protocol_hash != row["protocol_hash"]
    assert other.num_windows == 10
    with pytest.raises(ConfigurationError, match="cannot be changed in a trained model"):
        score_model(model, store, ["model.chunk_size=1"])


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_generate_continues_the_prompt_with_the_language_s_letters(calm_bench: Command) -> None:
    first = calm_bench("generate", "K=2", "--prompt", "abc", "--tokens", "12", "--store", "on-ray").stdout
    assert first.startswith("abc")
    assert len(first.encode("utf-8", "replace")) > len("abc\n")
    again = calm_bench("generate", "K=2", "--prompt", "abc", "--tokens", "12", "--store", "on-ray").stdout
    assert again == first


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_programs_read_json(calm_bench: Command, folder: Path, tmp_path: Path) -> None:
    there = rows(calm_bench, "--store", "on-ray")
    ran = calm_bench("run", "tiny.yaml", "--store", "on-ray", "--json")
    assert "everything is there" in ran.stderr
    run = json.loads(ran.stdout)
    assert [(one["label"], one["state"], one["error"]) for one in run["trials"]] == [
        (label, "complete", None) for label in ("token", "K=2", "K=2 narrow")
    ]
    identity = run["folder"].rpartition("-")[2]
    ranked = run["leaderboard"]["groups"][0]["entries"]
    assert {row["label"]: row | {"study_identity": identity} for row in ranked} == there
    assert (folder / run["files"]["md"]).is_file()
    assert (folder / run["report"]).is_file()

    store = str(folder / "on-ray")
    board = in_process("leaderboard", "--store", store, "--json")
    assert board == in_process("leaderboard", "--store", store, "--format", "json")
    (tmp_path / "board.json").write_text(board)
    (tmp_path / "other.json").write_text("[]")
    files = [str(tmp_path / name) for name in ("board.json", "other.json")]
    checked = json.loads(in_process("check", *files, "--json", code=1))
    assert [(one["file"], one["rows"], len(one["problems"])) for one in checked] == [
        (files[0], 3, 0),
        (files[1], None, 1),
    ]
    page = str(tmp_path / "page.html")
    assert json.loads(in_process("report", "--merge", files[0], "--output", page, "--json")) == {"report": page}

    texts = calm_bench("generate", "K=2", "--prompt", "a", "--prompt", "b", "--tokens", "8", "--store", store, "--json")
    one, other = json.loads(texts.stdout)
    assert (
        one["prompt"] + one["text"]
        in calm_bench("generate", "K=2", "--prompt", "a", "--tokens", "8", "--store", store).stdout
    )
    assert other["prompt"] == "b"

    handed = json.loads(in_process("export", "K=2", "--store", store, "--output", str(tmp_path / "model"), "--json"))
    assert {file["name"]: file["bytes"] for file in handed["files"]} == {
        str(path.relative_to(tmp_path / "model")): path.stat().st_size
        for path in (tmp_path / "model").rglob("*")
        if path.is_file()
    }
    pushed = json.loads(in_process("push", "K=2", "ada/calm", "--dry-run", "--store", store, "--json"))
    assert (pushed["repository"], pushed["commit"]) == ("ada/calm", None)
    assert "model-index:" in pushed["card"]

    database = f"sqlite:///{folder / 'on-ray' / 'mlflow.db'}"
    sent = json.loads(calm_bench("mlflow", "sync", "--store", "on-ray", "--json").stdout)
    (study,) = sent["studies"]
    assert (study["address"], study["trials"], study["problem"]) == (database, 3, None)


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_probe_reads_an_autoencoder_by_label_and_by_folder(calm_bench: Command, folder: Path) -> None:
    said = calm_bench("probe", "K=2", "--store", "on-ray", "--picture", "probe.svg").stdout
    assert "Autoencoder of K = 2 tokens in 8 dimensions" in said
    assert "Reconstructed" in said
    assert "</svg>" in (folder / "probe.svg").read_text()
    (autoencoder,) = (folder / "on-ray" / "stages" / "autoencoder").iterdir()
    arguments = ["--tokens", "500", "--store", "on-ray", "--json"]
    probes = [json.loads(calm_bench("probe", name, *arguments).stdout) for name in ("K=2", str(autoencoder))]
    assert probes[0] == probes[1]
    assert probes[0]["posterior"]["num_tokens"] == 500
    assert "no autoencoder" in calm_bench("probe", "token", "--store", "on-ray", code=2).stderr


@pytest.mark.slow
def test_a_failing_trial_is_told_and_the_others_are_ranked(calm_bench: Command) -> None:
    settings = [
        "search.parameters[0].include=[token]",
        "model.training.learning_rate=1e9",
        "model.training.log_every=1",
    ]
    done = calm_bench("run", "tiny.yaml", *settings, "--local", "--store", "failing", "tracking.enabled=false", code=1)
    assert "learning_rate" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "k-abaltion"], "did you mean 'k-ablation'?"),
        (["run", "tiny.yaml", "model.hiden_size=3"], "did you mean 'model.hidden_size'?"),
        (["plan", "tiny.yaml", "model.head.alpha=2"], "model.head.alpha: input should be less than 2"),
        (["plan", "tiny.yaml", "corpus.source=absent.txt"], "absent.txt"),
        (["eval", "K=5", "--store", "nothing"], "no study has finished"),
        (["leaderboard", "absent", "--store", "nothing"], "there is no store"),
        (["eval", "."], "holds no model"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(calm_bench: Command, arguments: list[str], message: str) -> None:
    done = calm_bench(*arguments, code=2)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not done.stdout


def test_help_needs_no_heavy_library() -> None:
    """How ``--help`` answers in under a second; the time itself depends on the machine."""
    script = (
        "import sys, pipelines.app.cli\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'transformers', 'matplotlib', 'numpy', 'pyarrow', 'pydantic'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_shipped_studies_are_listed_and_shown(calm_bench: Command) -> None:
    listed = calm_bench("studies").stdout
    for name in ("k-ablation", "smoke", "tune-head", "paper-k-ablation"):
        assert name in listed
    assert "name: smoke" in calm_bench("studies", "--show", "smoke").stdout


def in_process(*arguments: str, code: int = 0) -> str:
    """Output of a command that needs no process of its own."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_two_models_are_compared_in_pairs_without_scoring_again(calm_bench: Command, folder: Path) -> None:
    store, picked = str(folder / "on-ray"), rows(calm_bench, "--store", "on-ray")
    evaluations = sorted((folder / "on-ray" / "stages" / "evaluation").iterdir())
    found = json.loads(in_process("compare", "token", "tiny/K=2", "--store", store, "--json"))
    assert found["value"] == pytest.approx(picked["token"]["brierlm"] - picked["K=2"]["brierlm"])
    assert found["protocol_hash"] == picked["token"]["protocol_hash"]
    assert found["interval"][0] <= found["value"] <= found["interval"][1]
    assert sorted((folder / "on-ray" / "stages" / "evaluation").iterdir()) == evaluations
    itself = json.loads(in_process("compare", "token", "token@0", "--store", store, "--json"))
    assert (itself["value"], itself["standard_error"]) == (0, 0)
    assert "may be chance" in in_process("compare", "token", "token", "--store", store)
    refused = CliRunner().invoke(app, ["compare", "token", "token@7", "--store", store])
    assert "there is no model 'token@7'" in str(refused.exception)


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_context_sweep(folder: Path, tmp_path: Path) -> None:
    store, picture = str(folder / "on-ray"), tmp_path / "sweep.png"
    settings = ("evaluation.max_windows=20", "--store", store)
    found = json.loads(
        in_process(
            "context-sweep", "token,tiny/K=2", "--lengths", "8,32", *settings, "--json", "--picture", str(picture)
        )
    )
    assert list(found) == ["token", "tiny/K=2"]
    for sweep in found.values():
        assert [point["context_length"] for point in sweep["points"]] == [8, 32]
        assert sweep["points"][1]["difference"] == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "Difference" in in_process("context-sweep", "token", *settings)
    refused = CliRunner().invoke(app, ["context-sweep", "token", "--lengths", "8,many", *settings])
    assert "numbers of tokens" in str(refused.exception)


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_sample_size(folder: Path) -> None:
    store = str(folder / "on-ray")
    sizes = json.loads(in_process("sample-size", "token", "--error", "0.05", "--store", store, "--json"))
    assert all(size["standard_error"] <= 0.05 for size in sizes)
    finer = json.loads(in_process("sample-size", "token", "--error", "0.01", "--store", store, "--json"))
    assert finer[0]["num_documents"] > sizes[0]["num_documents"]
    assert "Documents" in in_process("sample-size", "token", "--error", "0.5", "--store", store)
    refused = CliRunner().invoke(app, ["sample-size", "token", "--error", "0", "--store", store])
    assert "must be positive" in str(refused.exception)


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_a_leaderboard_against_an_older_one(calm_bench: Command, folder: Path, tmp_path: Path) -> None:
    store, old = str(folder / "on-ray"), tmp_path / "old.json"
    old.write_text(in_process("leaderboard", "--store", store, "--format", "json"))
    changes = in_process("leaderboard", "--store", store, "--baseline", str(old))
    assert changes.count("neither") == 3
    refused = CliRunner().invoke(app, ["leaderboard", "--store", store, "--baseline", str(tmp_path / "none.json")])
    assert "there is no leaderboard" in str(refused.exception)
