"""What a name on the hub stands for is known from the hub's cache, without asking anybody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from calm_bench.config import Experiment, Tokens
from calm_bench.hub_commit import kept_snapshot
from calm_bench.overrides import ConfigurationError
from calm_bench.tokens.bpe import BpeTokenizer
from pipelines.planning.preflight import check_study
from pipelines.study.config import Study
from pipelines.study.graph import stages_for
from pipelines.study.identity import study_identity
from pipelines.study.price import assumed_vocab_size

FIRST, SECOND = "1" * 40, "2" * 40
NAME = "somebody/words"
SETTINGS = {"corpus": {"source": "markov"}, "tokens": {"tokenizer": NAME}}
MAKE_TOKENS = """
import json, sys
from calm_bench.config import Experiment
from pipelines.execution.run_stage import run_stage
from pipelines.store.store import Store
from pipelines.study.graph import stages_for
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import STAGE_KINDS

store, graph = Store(sys.argv[1]), stages_for(Experiment.model_validate(json.loads(sys.argv[2])))
for kind in ("corpus", "tokens"):
    found = run_stage(store, graph[kind], STAGE_KINDS.get(kind), StageContext())
print(graph["tokens"].identity, found["vocab_size"])
"""


def keep(cache: Path, commit: str, size: int, text: str = "the quick brown fox jumps over the lazy dog\n") -> None:
    """Have the cache hold a tokenizer of the hub, its main branch at ``commit``."""
    from transformers import PreTrainedTokenizerFast

    repository = cache / f"models--{NAME.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    BpeTokenizer.train([text] * 20, size).save(cache / "made")
    made = PreTrainedTokenizerFast(tokenizer_file=str(cache / "made" / "tokenizer.json"), eos_token="<|endoftext|>")
    made.save_pretrained(str(snapshot))
    # Without a network transformers reads no tokenizer without it.
    (snapshot / "config.json").write_text('{"model_type": "llama"}')
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_size_that_is_the_default_is_known_of_a_tokenizer_that_is_here(cache: Path) -> None:
    """To set tokens.vocab_size to 512, as it was advised, said nothing: that is what it is where nobody sets it."""
    usual = Tokens().vocab_size
    assert assumed_vocab_size(Tokens(tokenizer=NAME, vocab_size=usual + 1)) == usual + 1
    with pytest.raises(ConfigurationError, match=rf"one of {usual}, .* is here \(hf download {NAME} --revision v1\)$"):
        assumed_vocab_size(Tokens(tokenizer=NAME, vocab_size=usual, revision="v1"))
    keep(cache, FIRST, usual, " ".join(f"{number:06}" for number in range(0, 999_999, 3571)))
    assert assumed_vocab_size(Tokens(tokenizer=NAME)) == usual


def test_a_branch_is_the_commit_that_is_kept(cache: Path) -> None:
    assert kept_snapshot(NAME) is None
    keep(cache, FIRST, 270)
    found = kept_snapshot(NAME)
    assert found is not None
    assert found.name == FIRST
    assert kept_snapshot(NAME, "main") == kept_snapshot(NAME, FIRST) == found
    assert kept_snapshot(NAME, "v1.0") is None
    assert kept_snapshot(NAME, SECOND) is None
    for no_name in ("a/b/c", "/etc", "../words", "", "bytes"):
        assert kept_snapshot(no_name) is None


def test_a_tokenizer_of_the_hub_is_known_by_its_commit(cache: Path) -> None:
    def identities(**tokens: str) -> tuple[str, str]:
        settings = {**SETTINGS, "tokens": {"tokenizer": NAME, **tokens}}
        study = Study.model_validate({"name": "a", **settings})
        return stages_for(study.experiment())["tokens"].identity, study_identity(study)

    unknown = identities()
    keep(cache, FIRST, 270)
    first = identities()
    assert first == identities(revision=FIRST) == identities(revision="main")
    keep(cache, SECOND, 280)
    second = identities()
    assert len({*unknown, *first, *second}) == 6
    assert identities(revision=FIRST) == first
    settings = stages_for(Experiment.model_validate(SETTINGS))["tokens"].settings["tokens"]
    assert settings["revision"] == SECOND, "a worker elsewhere is to have the same"


def test_its_size_is_looked_up(cache: Path) -> None:
    keep(cache, FIRST, 270)
    assert assumed_vocab_size(Tokens(tokenizer=NAME)) == 270
    keep(cache, SECOND, 280)
    assert assumed_vocab_size(Tokens(tokenizer=NAME)) == 280
    assert assumed_vocab_size(Tokens(tokenizer=NAME, revision=FIRST)) == 270


@pytest.mark.extended
def test_tokens_are_made_anew_when_the_kept_tokenizer_is_another(tmp_path: Path) -> None:
    import json

    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("HF_HUB_CACHE", None)

    def made() -> list[str]:
        command = [sys.executable, "-c", MAKE_TOKENS, str(tmp_path / "store"), json.dumps(SETTINGS)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[-2:]

    keep(tmp_path / "hub", FIRST, 270)
    first = made()
    keep(tmp_path / "hub", SECOND, 280)
    second = made()
    assert (first[1], second[1]) == ("270", "280")
    assert first[0] != second[0]
    (tmp_path / "hub" / f"models--{NAME.replace('/', '--')}" / "refs" / "main").write_text(FIRST)
    assert made() == first


def test_a_name_that_the_hub_does_not_have_is_refused_before_anything_runs(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    study = Study.model_validate({"name": "a", "tokens": {"tokenizer": "byte"}})
    with pytest.raises(ConfigurationError, match=r"did you mean 'bytes'.*tokens\.revision=COMMIT goes on with them"):
        check_study(study, fetch=True)
    check_study(study)
    keep(cache, FIRST, 270)
    check_study(Study.model_validate({"name": "a", **SETTINGS}), fetch=True)
    elsewhere = Study.model_validate({"name": "a", "tokens": {"tokenizer": "no/where", "revision": FIRST}})
    check_study(elsewhere, fetch=True)
