"""What a message advises helps: each row is refused with the advice, and goes through when it is followed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from calm_bench.errors import CalmBenchError
from pipelines.app.cli import app
from pipelines.execution.choose_executor import make_executor
from pipelines.planning.limit import parse_limit
from pipelines.planning.machines import machine_named
from pipelines.planning.objective_text import settle_objective_text
from pipelines.planning.planner import plan_study
from pipelines.planning.preflight import check_study
from pipelines.store.store import Store
from pipelines.study.catalogue import resolve_study
from pipelines.study.config import Execution
from tests.calm_bench.training.tiny_trainings import PointHead


def look_at(folder: Path, *settings: str) -> None:
    """All that is checked of a study before anything is started.

    Raises:
        CalmBenchError: it is refused.
    """
    source = [] if any(setting.startswith("corpus.source=") for setting in settings) else ["corpus.source=markov"]
    study = resolve_study("smoke", [*source, f"execution.store={folder}", *settings])
    check_study(study)
    store = Store(folder / "runs")
    settle_objective_text(study, store)
    make_executor(study.execution, store)
    for trial in plan_study(study, store).trials:
        if trial.error is not None:
            raise CalmBenchError(trial.error)


CUDA = ["execution.device=cuda", "execution.gpus_per_stage=1"]
RANGE = "search.parameters=[{name: model.training.learning_rate, low: 1e-4, high: 1e-2, log: true}]"
TPE = ["search.sampler=tpe", "search.num_trials=2"]
ON_TEST = "search.split=test"
BUDGET = "budget=equal-flops"
LENGTHS = "search.parameters=[{name: model.training.num_flops, values: [1e12, 2e12]}]"
COMMIT = f"corpus.revision={'ab' * 20}"
HALF_A_GPU = "execution.gpus_per_stage=0.5"
TASKS = ["benchmarks.tasks=[markov_choice]"]
NO_SEARCH = ["search.parameters=[]", "model.chunk_size=4"]
MIXTURE = "corpus.mixture=[{source: stdlib, weight: 2}, {source: markov, weight: 1}]"
THREE = ["execution.workers=3"]
BATCHES_OF_2 = "model.training.batch_size=2"
SMALL_AUTOENCODER = "autoencoder.training.batch_size=2"
OWN_HEAD = [
    "search.parameters=[]",
    "model.head.kind=custom",
    f"model.head.target={__name__}:Own",
    "model.training.batch_size=6",
]


class Own(PointHead):
    """A head that says nothing of how it draws."""


class ByRows(PointHead):
    """The same, that says how."""

    draws_by_rows = True


@pytest.mark.parametrize(
    ("given", "advice", "followed"),
    [
        (["corpus.validation_fraction=0"], "give it a fraction above 0", ["corpus.validation_fraction=0.1"]),
        (["corpus.test_fraction=0"], "give it a fraction above 0", ["corpus.test_fraction=0.01"]),
        (["evaluation.max_windows=2"], "needs 3 windows or more", ["evaluation.max_windows=3"]),
        (["benchmarks.scorer=relativ_energy"], "did you mean 'relative_energy'", ["benchmarks.scorer=relative_energy"]),
        (["model.hidden_sise=64"], "model.hidden_size", ["model.hidden_size=64"]),
        (["training.batch_size=2"], "model.training", ["model.training.batch_size=2"]),
        (["budget=equal-flop"], "did you mean 'equal-flops'", ["budget=equal-flops"]),
        (["budget=equal-time soon"], "give a time such as 90s, 10min, 2h or 1d", ["budget=equal-time 10min"]),
        (["budget=equal-tokens many"], "give a positive number of tokens", ["budget=equal-tokens 1e6"]),
        (["budget=equal-flops 1e9"], "raise the budget", ["budget=equal-flops 1e13"]),
        (
            ["budget=equal-flops 1e9"],
            "or shorten the warm-up",
            ["budget=equal-flops 1e9", "model.training.warmup_steps=0"],
        ),
        (
            ["tokens.tokenizer=some/tokenizer"],
            "set tokens.vocab_size to its size",
            ["tokens.tokenizer=some/tokenizer", "tokens.vocab_size=32000"],
        ),
        (["execution.backend=local", "execution.workers=2"], "execution.backend=ray", ["execution.workers=2"]),
        (["execution.backend=local", "execution.workers=2"], "or execution.workers=1", ["execution.backend=local"]),
        ([*THREE, BATCHES_OF_2], "lower execution.workers", ["execution.workers=2", BATCHES_OF_2]),
        ([*THREE, BATCHES_OF_2], "raise its batch_size", [*THREE, BATCHES_OF_2.replace("2", "3")]),
        ([*THREE, SMALL_AUTOENCODER], "autoencoder.training", [*THREE, SMALL_AUTOENCODER.replace("2", "3")]),
        ([*THREE, *OWN_HEAD], "to a multiple of 3", [*THREE, *OWN_HEAD, "model.training.gradient_accumulation=3"]),
        (
            ["execution.micro_batch=2", *OWN_HEAD],
            "set model.training.gradient_accumulation instead",
            [*OWN_HEAD, "model.training.gradient_accumulation=3"],
        ),
        ([*THREE, *OWN_HEAD], "and say so", [*THREE, *(text.replace(":Own", ":ByRows") for text in OWN_HEAD)]),
        (["tracking.uri=http://***@h"], "has lost its password.* or tracking.uri=null", ["tracking.uri=null"]),
        (
            ["execution.optuna_storage=postgresql://***@h/d"],
            "give the whole address",
            ["execution.optuna_storage=null"],
        ),
        ([*TASKS, "benchmarks.scorer=exact"], "so its scorer cannot be 'exact': leave it unset", TASKS),
        ([*TASKS, "benchmarks.scorer=exact"], "or take decoder,", [*TASKS, "benchmarks.scorer=decoder"]),
        ([*TASKS, *NO_SEARCH, "model.kind=block_diffusion"], "are for models with either", [*TASKS, *NO_SEARCH]),
        (["execution.device=cuda"], "needs execution.gpus_per_stage=1", CUDA),
        ([RANGE], "use sampler: tpe", [RANGE, *TPE]),
        (["search.sampler=random"], "needs num_trials", ["search.sampler=random", "search.num_trials=2"]),
        ([BUDGET, LENGTHS], "leave one of the two out", [BUDGET]),
        ([BUDGET, LENGTHS], "leave one of the two out", [LENGTHS]),
        (["corpus.source=hf:a/b"], "to a full commit hash of 40 hex digits", ["corpus.source=hf:a/b", COMMIT]),
        (["autoencoder.chunk_size=3"], "leave autoencoder.chunk_size unset to follow the model", []),
        (["execution.workers=2", HALF_A_GPU], "a GPU each .gpus_per_stage=1.", ["execution.workers=2", CUDA[1]]),
        (["execution.workers=2", HALF_A_GPU], "or none", ["execution.workers=2"]),
        (["corpus.test_fraction=0.999"], "must stay below 1", ["corpus.test_fraction=0.5"]),
        (
            ["nosuch"],
            "of the form key=value, such as model.chunk_size=2",
            ["search.parameters=[]", "model.chunk_size=2"],
        ),
        ([MIXTURE], "set corpus.source=mixture for the mixture", [MIXTURE, "corpus.source=mixture"]),
        ([MIXTURE], r"or corpus.mixture=\[\] for the source", ["corpus.mixture=[]"]),
        (
            [MIXTURE, "corpus.source=mixture", "corpus.max_documents=9"],
            "and here set corpus.max_documents=null",
            [MIXTURE, "corpus.source=mixture", "corpus.max_documents=null"],
        ),
        (["corpus.sourc=markov"], "did you mean .?corpus.source", []),
        ([*TPE, ON_TEST], "Leave search.split out", TPE),
        ([*TPE, ON_TEST], "search.allow_test_objective=true", [*TPE, ON_TEST, "search.allow_test_objective=true"]),
        (
            ["search.parameters.0.include=[tokens]"],
            "there are \\['token'",
            ["search.parameters.0.include=[token]"],
        ),
    ],
)
def test_settings(tmp_path: Path, given: list[str], advice: str, followed: list[str]) -> None:
    with pytest.raises(CalmBenchError, match=advice):
        look_at(tmp_path, *given)
    look_at(tmp_path, *followed)


@pytest.mark.parametrize(
    ("given", "printed"),
    [(["seed=0,1,2"], r"'(search\.parameters=.+)'"), ([*TPE, ON_TEST], r"'(final=.+)'")],
)
def test_settings_as_they_are_printed(tmp_path: Path, given: list[str], printed: str) -> None:
    with pytest.raises(CalmBenchError) as refused:
        look_at(tmp_path, *given)
    named = re.search(printed, str(refused.value))
    assert named is not None, refused.value
    look_at(tmp_path, *(text for text in given if text not in ("seed=0,1,2", ON_TEST)), named[1])


def test_a_corpus_by_its_path(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.jsonl").write_text("\n".join(json.dumps({"text": f"text {n}"}) for n in range(30)))
    with pytest.raises(CalmBenchError, match="give the path itself, as in"):
        look_at(tmp_path, "corpus.source=local")
    look_at(tmp_path, f"corpus.source={texts}/")


def test_amounts_of_a_limit() -> None:
    with pytest.raises(CalmBenchError) as refused:
        parse_limit("lots")
    named = re.findall(r"\d[\w.-]*(?=[,)])|1e15", str(refused.value))
    assert len(named) >= 3
    for text in named:
        parse_limit(text)


def test_machines() -> None:
    with pytest.raises(CalmBenchError, match=r"several GPUs: h100x8"):
        machine_named("h10", Execution())
    machine_named("h100x8", Execution())
    with pytest.raises(CalmBenchError, match="give more than 0 and at most 1"):
        machine_named("h100", Execution(), mfu=0)
    machine_named("h100", Execution(), mfu=1)
    with pytest.raises(CalmBenchError, match=r"such as --machine h100x4") as refused:
        machine_named("h100", Execution(workers=4, gpus_per_stage=1))
    named = re.search(r"--machine (\S+)\)", str(refused.value))
    assert named is not None
    machine_named(named[1], Execution(workers=4, gpus_per_stage=1))


def test_a_budget_in_gpu_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["plan", "smoke", "corpus.source=markov", "--budget", "500gpu-hours"]
    refused = CliRunner().invoke(app, asked)
    assert "name GPUs (--machine h100x8), or set execution.gpus_per_stage" in str(refused.exception)
    for more in (["--machine", "h100x8"], ["execution.gpus_per_stage=1"]):
        assert CliRunner().invoke(app, [*asked, *more]).exit_code == 0
