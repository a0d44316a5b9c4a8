"""What a message advises helps: each row is refused with the advice, and goes through when it is followed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main
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

pytestmark = pytest.mark.slow


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


Taken = Callable[[re.Match[str]], list[str]]
LAYERS = "name: model.num_layers, low: 1, high: 3"
TWO = "search.objectives=[{metric: brierlm}, {metric: parameters, direction: minimize}]"
FINAL = "final={seeds: [1, 2]}"
SEEDS = "search.parameters=[{name: seed, values: [1]}]"
WHEN = "search.parameters=[{name: seed, values: [1, 2]}, {name: model.num_layers, values: [1, 2], when: {seed: [1]}}]"
SHORT = "model.training.warmup_steps=0"
TOO_LITTLE = [*NO_SEARCH, "budget=equal-total-flops 1e10"]


def whole(found: re.Match[str]) -> list[str]:
    """A setting that stands in the message whole, or as its name and its value."""
    return ["=".join(found.groups())]


def put(setting: str) -> Taken:
    """``setting``, ``{1}`` in which is what the message gave first."""
    return lambda found: [setting.format(*found.groups(), *[""] * 3)]


@pytest.mark.parametrize(
    ("given", "advice", "kept", "taken"),
    [
        (["tracking.experiment=''"], r"or set (\S+)$", ["tracking.experiment=''"], whole),
        (["tracking.experiment=''"], r"^(\S+) is empty: give it a name", [], put("{0}=mine")),
        (["tracking.uri=http://"], r"^(tracking\.uri).* write (http://HOST:PORT),", [], whole),
        (["tracking.uri=http://"], r"^(tracking\.uri).*, or (null) for one in the store", [], whole),
        (["samples.temperatures=[]"], r"or set (\S+)$", ["samples.temperatures=[]"], whole),
        (["samples.temperatures=[]"], r"^(\S+) is empty.*: name some", [], put("{0}=[1]")),
        ([*TASKS, "benchmarks.num_samples=1"], r"^(\S+)=1 .*needs (\d+) draws", TASKS, whole),
        (["benchmarks.tasks=[markov_choice, markov_choice]"], r"^(\S+) names (\w+) twice", [], put("{0}=[{1}]")),
        ([*TASKS, "benchmarks.max_length=4"], r"raise max_length .*(benchmarks\.\w+) of", TASKS, put("{0}=64")),
        (["search.objectives=[]"], r"as in (\S+ \S+)$", [], whole),
        ([TWO.replace("parameters,", "brierlm,")], r"^(\S+) names (\w+) twice", [], put("{0}=[{{metric: {1}}}]")),
        (
            [SEEDS.replace("}]", "}, {name: seed, values: [2]}]")],
            r"^(\S+) has two called '(\w+)'.*put their values into one",
            [],
            put("{0}=[{{name: {1}, values: [1, 2]}}]"),
        ),
        (
            [f"search.parameters=[{{{LAYERS}}}]", *TPE],
            r"add (integer: true),",
            TPE,
            put("search.parameters=[{{" + LAYERS + ", {0}}}]"),
        ),
        (
            [f"search.parameters=[{{{LAYERS}}}]", *TPE],
            r"'(\S+)' is a whole number.*, or list its (values)",
            TPE,
            put("search.parameters=[{{name: {0}, {1}: [1, 2]}}]"),
        ),
        ([TWO, *TPE, "search.pruner=median"], r"\((search\.pruner=\w+)\)$", [TWO, *TPE], whole),
        (
            ["search.parameters=[{name: seed}]"],
            r"exactly one of (\w+),",
            [],
            put("search.parameters=[{{name: seed, {0}: [1]}}]"),
        ),
        (
            ["search.parameters=[{name: seed}]"],
            r", (low) with (high), or",
            TPE,
            put("search.parameters=[{{name: seed, {0}: 1, {1}: 9, integer: true}}]"),
        ),
        (
            ["search.constraints=[{metric: parameters}]"],
            r"exactly one of (\w+) and",
            [],
            put("search.constraints=[{{metric: parameters, {0}: 1}}]"),
        ),
        (
            ["search.objectives=[{metric: autoencoder_accuracy}]"],
            r": (\w+) is told by .*bounded in (\S+)$",
            [],
            put("{1}=[{{metric: {0}, at_least: 0.1}}]"),
        ),
        (
            ["search.objectives=[{metric: brierml}]"],
            r"did you mean '(\w+)'",
            [],
            put("search.objectives=[{{metric: {0}}}]"),
        ),
        ([WHEN, *TPE, "search.each=[sed]"], r"those are \['(\w+)'", [WHEN, *TPE], put("search.each=[{0}]")),
        ([WHEN, *TPE], r"when names '(\w+)', which is not in (\S+)$", [WHEN, *TPE], put("{1}=[{0}]")),
        ([FINAL, "seed=1"], r"fresh seeds are others", ["seed=1"], put("final={{seeds: [2, 3]}}")),
        ([FINAL, SEEDS], r"sets seed, which final decides", [FINAL, NO_SEARCH[1]], put("search.parameters=[]")),
        (
            [FINAL, ON_TEST, "search.allow_test_objective=true"],
            r"^\S* ?final\.split and (search\.split) are both test",
            [FINAL],
            put("{0}=validation"),
        ),
        (TOO_LITTLE, r"or use (\S+), which leaves auto", [*NO_SEARCH, SHORT], put("budget={0} 1e10")),
        (TOO_LITTLE, r"takes (\S+)e\+10 FLOPs: raise it", [*NO_SEARCH, SHORT], put("budget=equal-total-flops {0}e11")),
        (
            TOO_LITTLE,
            r"shorten (autoencoder\.training), or",
            [*TOO_LITTLE, SHORT],
            lambda found: [f"{found[1]}.num_steps=1", f"{found[1]}.warmup_steps=0"],
        ),
        (["preset=tyni"], r"did you mean '(\w+)'", [], put("preset={0}")),
    ],
)
def test_settings_taken_from_the_message(
    tmp_path: Path, given: list[str], advice: str, kept: list[str], taken: Taken
) -> None:
    with pytest.raises(CalmBenchError) as refused:
        look_at(tmp_path, *given)
    found = re.search(advice, str(refused.value))
    assert found is not None, refused.value
    look_at(tmp_path, *kept, *taken(found))


def test_a_store_without_a_name() -> None:
    with pytest.raises(CalmBenchError) as refused:
        check_study(resolve_study("smoke", ["execution.store=''"]))
    named = re.search(r"(\S+) is empty.*: name a folder \((\w+)\)$", str(refused.value))
    assert named is not None
    check_study(resolve_study("smoke", whole(named)))


def test_the_trials_that_fit_are_run_without_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["plan", "smoke", "corpus.source=markov", "search.parameters=[{name: model.chunk_size, values: [2, 7]}]"]
    refused = CliRunner().invoke(app, asked)
    ((name, option),) = re.findall(r"calm-bench (\w+) of this with (--\S+) runs the others", str(refused.exception))
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    assert option in [option for parameter in command.params for option in parameter.opts]


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


def test_speeds_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(app, ["plan", "smoke", "corpus.source=markov", "--calibrate", "--machine", "h100"])
    machine = str(refused.exception).partition("name it too (--machine ")[2].removesuffix(")")
    assert machine_named(machine, Execution()).is_this
