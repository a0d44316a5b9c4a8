"""Tasks of lm-eval on a model: values, both errors, counts and hashes; unknown tasks and missing data."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import Corpus
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.lm import Calm, ChunkLanguageModel, TokenModel
from calm_bench.overrides import ConfigurationError
from calm_bench.registry import UnknownName
from calm_bench.tokens.byte_tokenizer import ByteTokenizer
from evals.benchmarks import run_tasks
from evals.choices import accuracy_error, mean_error, ratio_error
from evals.harness import CalmBenchLM
from evals.harness_reader import HarnessSettings
from evals.task_loading import MissingData, check_tasks, load_tasks
from pipelines.app.cli import main
from pipelines.app.commands.lm_eval import with_our_tasks
from tests.evals.own_tasks import ROWS, write_task

MARKOV = Corpus.model_validate({"source": "markov", "markov": {"num_documents": 40, "document_length": 120}})
METADATA: dict[str, Any] = {"corpus": MARKOV.model_dump(mode="json")}
SHORT = ["corpus.source=markov", "corpus.markov.num_documents=12", "corpus.markov.document_length=300"]
SHORT += ["evaluation.max_windows=4", "evaluation.context_length=64", "evaluation.num_samples=4"]


def network(kind: str) -> ChunkLanguageModel:
    torch.manual_seed(0)
    config = LanguageModelConfig.model_validate(
        {"hidden_size": 16, "intermediate_size": 24, "num_layers": 1, "chunk_size": 1 if kind == "token" else 4}
        | {"kind": kind}
    )
    if kind == "token":
        return TokenModel(config, 257).eval()
    settings = AutoencoderConfig(latent_size=8, hidden_size=16, intermediate_size=24)
    model = Calm(config, Autoencoder(settings, 4, 257))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model.eval()


def saved(kind: str, folder: Path) -> Path:
    network(kind).save(folder)
    ByteTokenizer().save(folder / "tokenizer")
    return folder


def harness(kind: str, **settings: Any) -> CalmBenchLM:
    return CalmBenchLM(network(kind), ByteTokenizer(), HarnessSettings(**{"num_samples": 8, **settings}))


def test_a_score_says_how_sure_it_is() -> None:
    accuracy, best = run_tasks(harness("calm"), ["markov_choice"], 12, METADATA)
    assert (accuracy.task, accuracy.metric, best.metric) == ("markov_choice", "acc", "best_acc")
    assert accuracy.num_documents == 12
    assert accuracy.num_samples == 8
    assert accuracy.scorer == "relative_energy"
    assert accuracy.standard_error is not None
    assert accuracy.monte_carlo_error is not None
    assert 0 < accuracy.monte_carlo_error < accuracy.standard_error
    assert (best.monte_carlo_error, best.scorer, best.num_samples) == (0, "exact", 0)
    assert accuracy.value <= 1
    assert best.value > 0.25


def test_token_models_have_no_monte_carlo_error() -> None:
    accuracy, _ = run_tasks(harness("token"), ["markov_choice"], 6, METADATA)
    assert (accuracy.scorer, accuracy.num_samples, accuracy.monte_carlo_error) == ("exact", 0, 0)


def test_hash_changes_with_the_questions_and_not_with_who_answers_how() -> None:
    def hash_of(limit: int = 2, metadata: dict[str, Any] = METADATA, kind: str = "calm", **settings: Any) -> str:
        return run_tasks(harness(kind, **settings), ["markov_choice"], limit, metadata)[0].protocol_hash

    same = hash_of()
    assert hash_of() == same
    assert hash_of(metadata={**METADATA, "corpus_folder": None}) == same
    assert hash_of(scorer="decoder", num_samples=9) == same
    assert hash_of(kind="token") == same
    seeds = {**METADATA, "documents_seed": 1}
    assert len({same, hash_of(limit=3), hash_of(metadata=seeds)}) == 3


@pytest.mark.parametrize("kind", ["multiple_choice", "generate_until", "loglikelihood_rolling"])
def test_hash_tells_the_length_that_is_read_where_it_decides_something(kind: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"multiple_choice": {}}.get(kind, {"output_type": kind, "doc_to_choice": None})
    if kind == "generate_until":
        changes |= {"doc_to_target": "{{choices[0]}}", "generation_kwargs": {"max_gen_toks": 4, "until": ["."]}}
        changes |= {"metric_list": [{"metric": "exact_match"}]}
    if kind == "loglikelihood_rolling":
        changes |= {"doc_to_text": "", "doc_to_target": "question", "metric_list": [{"metric": "bits_per_byte"}]}
    rows = [{**row, "question": f"{row['question']:x<60}"} for row in ROWS[:2]]
    task = str(write_task(tmp_path, rows=rows, **changes))
    cut, shorter, whole, longer = (
        run_tasks(harness("token", max_length=length), [task])[0] for length in (32, 24, 128, 256)
    )
    assert len({cut.protocol_hash, shorter.protocol_hash, whole.protocol_hash}) == 3
    assert longer == whole, "what is read whole is the same question at any length"


def test_errors_over_documents() -> None:
    values = [0.0, 1.0, 1.0, 1.0]
    assert mean_error(values) == pytest.approx(np.std(values, ddof=1) / 2)
    assert mean_error([1.0]) is None
    assert mean_error([1, 1, 1, 1]) == 0.25  # not 0: as if one had been wrong
    # A ratio of constants has no error; in general that of the delta method, here against a bootstrap.
    assert ratio_error([2, 4, 6], [1, 2, 3]) == pytest.approx(0)
    random = np.random.default_rng(0)
    tops, bottoms = random.normal(3, 1, 400), random.uniform(1, 3, 400)
    picks = random.integers(0, 400, (2000, 400))
    bootstrap = (tops[picks].sum(1) / bottoms[picks].sum(1)).std()
    assert ratio_error(tops.tolist(), bottoms.tolist()) == pytest.approx(bootstrap, rel=0.1)


def test_monte_carlo_error_of_an_accuracy() -> None:
    """Two choices of equal score are a coin; a sure choice moves nothing."""
    scores = [np.array([0.0, 0.0]), np.array([5.0, 0.0])]
    errors = [np.array([1.0, 1.0]), np.array([0.1, 0.1])]
    assert accuracy_error(scores, errors, np.array([0, 0])) == pytest.approx(0.25, abs=0.01)
    assert accuracy_error(scores[1:], errors[1:], np.array([1])) == 0
    ten = accuracy_error(scores, errors, np.array([0, 0]), copies=[10, 10])
    assert ten == accuracy_error(scores, errors, np.array([0, 0])), "a copy has no draws of its own"


def test_misspelt_names() -> None:
    with pytest.raises(UnknownName, match="did you mean 'stdlib_choice'"):
        load_tasks(["stdlib_choise"], {})


def task_file(folder: Path, data: str) -> Path:
    path = folder / "mine.yaml"
    text = "task: mine\ndataset_path: DATA\noutput_type: multiple_choice\ntest_split: test\ndoc_to_text: question\n"
    text += "doc_to_choice: choices\ndoc_to_target: answer\nmetric_list: [{metric: acc}]\n"
    path.write_text(text.replace("DATA", data))
    return path


def test_missing_data_says_how_to_provide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    path = task_file(tmp_path, "nobody/such-data")
    with pytest.raises(MissingData, match=r"nobody/such-data.*neither cached.*@FOLDER.*HF_HOME"):
        load_tasks([str(path)], {})
    data = tmp_path / "data"
    data.mkdir()
    rows = [{"question": question, "choices": ["c", "dd"], "answer": 1} for question in "abc"]
    (data / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    score = run_tasks(harness("token"), [f"{path}@{data}"])[0]
    assert (score.task, score.metric, score.num_documents) == ("mine", "acc", 3)
    with pytest.raises(ConfigurationError, match="no folder"):
        load_tasks([f"{path}@{tmp_path / 'nowhere'}"], {})


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["calm-bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["calm", "token"])
def test_eval_prints_and_tracks_everything(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    model, store = saved(kind, tmp_path / "model"), tmp_path / "runs"
    arguments = [str(model), "--store", str(store), *SHORT, "--tasks", "markov_choice", "--limit", "4"]
    assert command(monkeypatch, "eval", *arguments, "--samples", "4") == 0
    printed = capsys.readouterr()
    for part in ("BrierLM", "matched", "paper", "markov_choice", "best_acc", "MLflow"):
        assert part in printed.out, printed.err

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("calm-bench")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["calm_bench.role"] == "evaluation"
    assert run.data.tags["calm_bench.protocol_hash"].count(",") == 2
    name = f"markov_choice_acc_{'exact' if kind == 'token' else 'relative_energy'}"
    wanted = {f"task/{name}", f"error/{name}", f"count/{name}_samples", "brierlm_matched", "error/brierlm_matched"}
    assert wanted | {"brier/brier_1_matched", "brier/brier_4_paper"} <= set(run.data.metrics)
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"evaluation.json", "samples.md"}
    told = json.loads(Path(client.download_artifacts(run.info.run_id, "evaluation.json", str(tmp_path))).read_text())
    for protocol, result in told["brierlm"].items():
        # In the units of a study's rows.
        assert run.data.metrics[f"brier/brier_1_{protocol}"] == pytest.approx(result["brier"][0])
        assert run.data.metrics[f"error/brier_1_{protocol}"] == pytest.approx(result["brier_se"][0])
    texts = Path(client.download_artifacts(run.info.run_id, "samples.md", str(tmp_path))).read_text()
    assert "Temperature 1 " in texts
    assert "Temperature 0.5" in texts


@pytest.mark.slow
def test_eval_goes_on_without_mlflow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    model = saved("token", tmp_path / "model")
    arguments = [str(model), "--store", str(tmp_path / "runs"), *SHORT, "--protocols", "matched", "--json"]
    assert command(monkeypatch, "eval", *arguments) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["brierlm"]["matched"]["num_positions"] > 0
    assert "could not be written" in printed.err
    assert "secret" not in printed.err


@pytest.mark.slow
def test_eval_of_a_model_of_transformers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    letters = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=letters | {"<|end|>": 256}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>").save_pretrained(tmp_path / "gpt2")
    torch.manual_seed(0)
    ends = {"bos_token_id": 256, "eos_token_id": 256}
    config = GPT2Config(vocab_size=257, n_positions=256, n_embd=16, n_layer=1, n_head=2, **ends)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    arguments = [str(tmp_path / "gpt2"), "--store", str(tmp_path / "runs"), *SHORT]
    own = str(write_task(tmp_path / "own"))
    arguments += ["--tasks", "markov_choice", "--tasks", own, "--limit", "4", "--json", "--no-track"]
    assert command(monkeypatch, "eval", *arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["brierlm"]) == {"matched", "paper"}
    accuracy = found["tasks"][0]
    assert (accuracy["scorer"], accuracy["num_samples"], accuracy["monte_carlo_error"]) == ("exact", 0, 0)
    assert {score["task"] for score in found["tasks"]} == {"markov_choice", "mine"}, "the first is not lost"


def test_eval_refuses_what_it_cannot_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = str(saved("calm", tmp_path / "model"))
    for arguments, message in (
        (["--protocols", "papr"], "did you mean 'paper'"),
        (["--protocols", "none"], "nothing to score"),
        (["--tasks", "markov_choice", "--scorer", "decode"], "did you mean 'decoder'"),
        (["--tasks", "markov_choice", "--alignment", "end"], "alignment 'end'"),
    ):
        assert command(monkeypatch, "eval", model, "--store", str(tmp_path / "runs"), *arguments) == 2
        assert message in capsys.readouterr().err


def test_lm_eval_is_told_of_our_tasks() -> None:
    ours = ["--include_path", with_our_tasks(["ls", "tasks"])[-1]]
    assert Path(ours[1], "stdlib_choice.yaml").is_file()
    assert with_our_tasks(["--model", "calm-bench"]) == ["--model", "calm-bench", *ours]
    assert with_our_tasks(["run", "--help"]) == ["run", "--help"]
    own = ["run", "--include_path", "mine"]
    assert with_our_tasks(own) == own
    assert with_our_tasks([]) == []


@pytest.mark.slow
def test_bytes_are_a_unit_of_their_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model, store = saved("calm", tmp_path / "model"), tmp_path / "runs"
    settings = [setting.replace("documents=12", "documents=80") for setting in SHORT]
    arguments = [str(model), "--store", str(store), *settings, "--protocols", "matched,bytes", "--json", "--no-track"]
    assert command(monkeypatch, "eval", *arguments) == 0
    found = json.loads(capsys.readouterr().out)["brierlm"]
    assert found["bytes"]["protocol"]["unit"] == "bytes"
    assert found["bytes"]["num_positions"] > 0
    assert found["bytes"]["protocol_hash"] != found["matched"]["protocol_hash"]


def test_copies_of_a_question_are_one_in_errors() -> None:
    values, names = [0.0, 1.0, 1.0, 0.0, 1.0], list("abcde")
    assert mean_error(values * 10, names * 10) == pytest.approx(mean_error(values))
    assert mean_error(values, names) == mean_error(values)
    assert mean_error([1.0] * 8, ["a", "b"] * 4) == 0.5
    assert mean_error([1.0, 1.0], ["a", "a"]) is None
    tops, bottoms = [2.0, 4.0, 7.0], [1.0, 2.0, 3.0]
    assert ratio_error(tops * 10, bottoms * 10, list("abc") * 10) == pytest.approx(ratio_error(tops, bottoms))


def test_copies_of_a_question_have_no_draws_of_their_own(tmp_path: Path) -> None:
    """A question is answered once, however often it is asked: ten copies do not make what draws do to it smaller."""
    rows = [{**row, "question": f"{row['question']} {number}"} for number in range(3) for row in ROWS]
    texts = [{"text": f"text {number} of some words"} for number in range(6)]
    rolling = {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "text"}
    rolling |= {"doc_to_choice": None, "metric_list": [{"metric": "bits_per_byte"}]}
    for given, changes in ((rows, {}), (texts, rolling)):
        once, ten = (
            run_tasks(harness("calm"), [str(write_task(tmp_path, rows=given * times, **changes))])[0]
            for times in (1, 10)
        )
        assert once.monte_carlo_error is not None
        assert once.monte_carlo_error > 0
        assert ten.monte_carlo_error == pytest.approx(once.monte_carlo_error)
        assert ten.value == pytest.approx(once.value)


def test_copies_of_a_question_are_said(tmp_path: Path) -> None:
    path = task_file(tmp_path, "json")
    path.write_text(path.read_text() + "dataset_kwargs: {data_files: {test: rows.jsonl}}\n")
    rows = [{"question": question, "choices": ["c", "dd"], "answer": 1} for question in "abc"] * 4
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said: list[str] = []
    score = run_tasks(harness("token"), [str(path)], remark=said.append)[0]
    assert score.num_documents == 3
    assert said == ["mine: 9 of 12 questions are copies of others, and are no others in its errors"]


def test_a_copy_of_a_question_is_one_whatever_number_it_has(tmp_path: Path) -> None:
    once = [{**row, "question": f"{row['question']} {number}"} for number in range(3) for row in ROWS]
    copied = [{**row, "id": number, "source": f"page {number}"} for number, row in enumerate(once * 10)]
    swapped = [*once, *({**row, "answer": 1 - row["answer"]} for row in once)]
    said: list[str] = []
    found = [
        run_tasks(harness("token"), [str(write_task(tmp_path, rows=rows))], remark=said.append)[0]
        for rows in (once, copied, swapped)
    ]
    assert [score.num_documents for score in found] == [18, 18, 18]
    assert found[1].standard_error == pytest.approx(found[0].standard_error)
    assert said[0] == "mine: 162 of 180 questions are copies of others, and are no others in its errors"
    # Texts that are scored are told apart by themselves: they have no question.
    rows = [{"text": f"text {number}"} for number in range(4)] * 2
    rolling = {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "text",
        "doc_to_choice": None,
    }
    path = write_task(tmp_path, rows=rows, **rolling, metric_list=[{"metric": "bits_per_byte"}])
    assert run_tasks(harness("token"), [str(path)])[0].num_documents == 4


def test_tasks_are_checked_without_advice_on_an_option_of_lm_eval(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Beside a task of one's own those that ship are loaded too, whose data sets are functions."""
    check_tasks([str(write_task(tmp_path)), "markov_choice"], limit=2)
    assert [record.getMessage() for record in caplog.records if "--metadata" in record.getMessage()] == []
