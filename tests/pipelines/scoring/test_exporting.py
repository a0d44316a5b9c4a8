"""Models handed on: folders that load elsewhere, their cards, and a hub."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModel, AutoTokenizer

import calm_bench as cb
import calm_bench.hub
from calm_bench.lm import load_language_model
from calm_bench.overrides import ConfigurationError
from tests.pipelines.scoring.fake_hub import FakeHub, serving

pytestmark = pytest.mark.slow

SMALL = ["autoencoder.training.num_steps=5", "model.training.num_flops=3e8", "evaluation.max_windows=12"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("private") / "runs"


@pytest.fixture(scope="module")
def study(store: Path) -> cb.StudyResult:
    text = store.parent / "my-letters.txt"
    text.write_text("\n\n".join(f"Dear {n}, the weather is as it was on day {n * n % 97}. " * 9 for n in range(400)))
    settings = [*SMALL, f"corpus.source={text}", "tracking.enabled=false", "samples.num_prompts=1"]
    return cb.Study.from_yaml("smoke", *settings, store=store).run(local=True, quiet=True)


def command(store: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from pipelines.app.cli import main; main()", *arguments, "--store", str(store)],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def exported(study: cb.StudyResult, store: Path) -> Path:
    folder = store.parent / "K=2"
    done = command(store, "export", "K=2", "--output", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


def test_the_folder_gives_the_models_own_text(study: cb.StudyResult, exported: Path) -> None:
    own = study.load_model("K=2")
    assert cb.load_model(exported).generate("Dear", 24) == own.generate("Dear", 24)
    network = AutoModel.from_pretrained(str(exported)).network
    ours = load_language_model(own.folder).state_dict()
    assert all((tensor == ours[name]).all() for name, tensor in network.state_dict().items())
    tokenizer = AutoTokenizer.from_pretrained(str(exported), trust_remote_code=False)
    assert tokenizer("Dear é")["input_ids"] == own.encode("Dear é")


@pytest.mark.parametrize("name", ["token", "K=2"])
def test_an_autoencoder_that_nobody_would_use_is_refused(study: cb.StudyResult, store: Path, name: str) -> None:
    other = study.load_model("K=2").folder
    for words in (["generate", name, "--prompt", "Dear"], ["export", name, "--output", str(store / "out")]):
        done = command(store, *words, "--autoencoder", str(other))
        assert done.returncode == 2
        assert "--autoencoder is for a released checkpoint" in " ".join(done.stderr.split())
    with pytest.raises(ConfigurationError, match="leave it out"):
        cb.load_model(name, store=store, autoencoder=other)


def test_the_card_has_score_error_protocol_and_compute(study: cb.StudyResult, exported: Path) -> None:
    row = next(row for row in study if row.label == "K=2")
    card = ModelCard.load(exported / "README.md")
    found = {result.metric_type: result for result in card.data.eval_results or ()}
    assert card.data.model_name == "K=2"
    assert found["brierlm"].metric_value == row.brierlm
    assert found["brierlm"].metric_args["standard_error"] == row.brierlm_se
    assert found["brierlm"].dataset_args == {"digest": row.corpus_digest, "protocol_hash": row.protocol_hash}
    assert [found[f"brier_{n}"].metric_value for n in (1, 2, 3, 4)] == list(row.brier)
    assert [found[f"brier_{n}"].metric_args["standard_error"] for n in (1, 2, 3, 4)] == list(row.brier_se)
    for name in ("total_training_flops", "training_flops", "inference_flops_per_token"):
        assert found[name].metric_value == getattr(row, name)
    assert f"Protocol `{row.protocol_hash}`" in card.text


def test_no_path_of_this_machine_is_handed_on(exported: Path, store: Path) -> None:
    assert "trained on my-letters.txt" in (exported / "README.md").read_text()
    for path in exported.rglob("*"):
        if path.is_file():
            assert str(store.parent).encode() not in path.read_bytes(), path


def test_a_folder_in_use_is_left_alone(exported: Path, store: Path) -> None:
    before = sorted(path.stat().st_mtime_ns for path in exported.rglob("*"))
    done = command(store, "export", "K=2", "--output", str(exported))
    assert (done.returncode, "is not empty" in done.stderr) == (2, True)
    assert sorted(path.stat().st_mtime_ns for path in exported.rglob("*")) == before


def test_the_released_format_is_read_back(study: cb.StudyResult, store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "released"
    done = command(store, "export", "K=2", "--format", "released", "--output", str(folder))
    assert done.returncode == 0, done.stderr
    assert "note: the reference trains with 100 target draws" in done.stderr
    assert cb.load_model(folder).generate("Dear", 24) == study.load_model("K=2").generate("Dear", 24)
    assert "## What differs in this format" in (folder / "README.md").read_text()
    done = command(store, "export", "token", "--format", "released", "--output", str(tmp_path / "token"))
    assert (done.returncode, "plain Llama" in done.stderr) == (1, True)
    assert not (tmp_path / "token").exists()


@pytest.mark.parametrize("command_line", [("export", "K=2"), ("push", "K=2", "ada/calm", "--dry-run")])
def test_weights_of_the_released_format_are_not_for_another(
    command_line: tuple[str, ...], study: cb.StudyResult, store: Path, tmp_path: Path
) -> None:
    place = ("--output", str(tmp_path / "new")) if command_line[0] == "export" else ()
    done = command(store, *command_line, *place, "--weights", "bin")
    assert (done.returncode, "--weights bin is of --format released" in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "new").exists()
    done = command(store, *command_line, *place, "--weights", "bin", "--format", "released")
    assert done.returncode == 0, done.stderr
    assert "pytorch_model.bin" in done.stdout


def test_a_dry_run_shows_all_and_sends_nothing(study: cb.StudyResult, store: Path) -> None:
    hub = FakeHub()
    with serving(hub) as address:
        done = command(store, "push", "K=2", "ada/calm", "--dry-run", HF_ENDPOINT=address, HF_TOKEN="hf_good")
    assert done.returncode == 0, done.stderr
    assert "model.safetensors" in done.stdout
    assert "model-index:" in done.stdout
    assert hub.requests == []


@pytest.mark.parametrize("format", ["hf", "released"])
def test_a_hub_gets_every_file_and_no_path(format: str, study: cb.StudyResult, store: Path, tmp_path: Path) -> None:
    hub = FakeHub()
    with serving(hub) as address:
        settings = {"HF_ENDPOINT": address, "HF_TOKEN": "hf_good", "HF_HUB_DISABLE_XET": "1"}
        done = command(store, "push", "K=2", "ada/calm", "--format", format, **settings)
        assert done.returncode == 0, done.stderr
        assert f"{address}/ada/calm/commit/" in done.stdout
        assert hub.repositories["ada/calm"]["visibility"] == "private"
        # What is there is written over.
        assert command(store, "push", "K=2", "ada/calm", "--format", format, **settings).returncode == 0
    for name, content in hub.files.items():
        assert str(Path(tempfile.gettempdir())).encode() not in content, name
        (tmp_path / "got" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "got" / name).write_bytes(content)
    assert cb.load_model(tmp_path / "got").generate("Dear", 24) == study.load_model("K=2").generate("Dear", 24)


def test_a_refused_token_is_told_and_not_shown(study: cb.StudyResult, store: Path) -> None:
    with serving(FakeHub()) as address:
        done = command(store, "push", "K=2", "ada/calm", HF_ENDPOINT=address, HF_TOKEN="hf_bad_bad_bad_bad_bad")
    assert done.returncode == 1
    assert "took nothing" in done.stderr
    assert "hf auth login" in done.stderr
    assert "hf_bad" not in done.stdout + done.stderr


def test_other_names_of_repositories_are_refused(study: cb.StudyResult, store: Path) -> None:
    done = command(store, "push", "K=2", "calm", "--dry-run")
    assert (done.returncode, "OWNER/NAME" in done.stderr) == (2, True)
