"""What messages about models and texts to be scored advise is taken from the message, done, and helps."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from calm_bench.config import LanguageModel
from calm_bench.errors import CalmBenchError
from calm_bench.lm.folder import build_language_model
from calm_bench.tokens.byte_tokenizer import ByteTokenizer
from pipelines.scoring.eval_rows import _declared
from pipelines.scoring.evaluating import EvalRequest
from pipelines.scoring.generation import _checked
from pipelines.scoring.models import TrainedModel
from pipelines.scoring.scoring import Scoring
from pipelines.store.store import Store
from tests.evals.tiny_models import save_tiny


def refusal(call: Callable[[], object], advice: str) -> re.Match[str]:
    """What ``advice`` finds in the message with which ``call`` is refused."""
    with pytest.raises(CalmBenchError) as refused:
        call()
    found = re.search(advice, str(refused.value), re.DOTALL)
    assert found is not None, refused.value
    return found


def request(protocols: str, tasks: str = "", scorer: str | None = None, samples: int = 64) -> EvalRequest:
    return EvalRequest.of(protocols, tasks, None, scorer, samples, None, "continuation", texts=False)


def test_protocols_and_tasks_are_named() -> None:
    near = refusal(lambda: request("matched,word"), r"did you mean '(\w+)'")[1]
    assert request(near).protocols == (near,)
    refusal(lambda: request("none"), "neither a protocol nor a task is named")
    assert request("none", "offline").tasks


def test_what_tasks_alone_go_by_needs_one() -> None:
    told = "--scorer and --samples would change nothing: no task is named. Add --tasks, such as --tasks (\\w+), or"
    tasks = refusal(lambda: request("matched", scorer="exact", samples=8), told)[1]
    wanted = request("matched", tasks, "exact", 8)
    assert (wanted.scorer, wanted.num_samples) == ("exact", 8)


def test_a_prompt_is_converted_by_the_command_that_is_named() -> None:
    typed = "café".encode("latin1")
    command = refusal(lambda: _checked(typed.decode(errors="surrogateescape")), r"as with (iconv .+)$")[1]
    done = subprocess.run(command.split(), input=typed, capture_output=True, check=True)
    assert _checked(done.stdout.decode(errors="surrogateescape")) == "café"


def test_numbers_that_a_sampler_declares() -> None:
    sampler = SimpleNamespace(parameters=-1)
    name = refusal(lambda: _declared(sampler), r"\.(\w+) is -1, and a positive number is wanted$")[1]
    setattr(sampler, name, 1000)
    assert _declared(sampler)[name] == 1000


TEXT = ["corpus.source=markov", "corpus.markov.num_documents=60", "corpus.markov.document_length=120"]


@pytest.fixture
def model(tmp_path: Path) -> TrainedModel:
    """A model of bytes that was never trained."""
    config = LanguageModel(kind="token", hidden_size=16, intermediate_size=16, num_layers=1, num_attention_heads=2)
    build_language_model(config, 257, None, 0).save(tmp_path / "model")
    ByteTokenizer().save(tmp_path / "model" / "tokenizer")
    return TrainedModel(tmp_path / "model")


def test_the_settings_that_can_be_changed(model: TrainedModel, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    sections = refusal(
        lambda: Scoring(model, store, [*TEXT, "model.chunk_size=2"]), r"; (\w+)\.\* and (\w+)\.\* can$"
    ).groups()
    found = Scoring(model, store, [*TEXT, f"{sections[0]}.test_fraction=0.3", f"{sections[1]}.num_samples=4"])
    assert (found.experiment.corpus.test_fraction, found.experiment.evaluation.num_samples) == (0.3, 4)


def test_a_tokenizer_that_is_not_the_models(model: TrainedModel, tmp_path: Path) -> None:
    store, other = Store(tmp_path / "runs"), str(save_tiny(tmp_path / "other"))
    wrong = replace(model, tokenizer=other)
    option = refusal(lambda: Scoring(wrong, store, TEXT), r"not the model's; (--[a-z]+) names another$")[1]
    assert Scoring(replace(model, **{option[2:]: "bytes"}), store, TEXT).stream.vocab_size == 257
