"""One word makes all language models of a study equally long, and changes nothing where it is not said."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from calm_bench.overrides import ConfigurationError
from pipelines.execution.local_executor import LocalExecutor
from pipelines.planning.budgets import RESOLVED, rule_for
from pipelines.planning.plan import Plan
from pipelines.planning.planner import plan_study
from pipelines.report.captions import budget_in_words
from pipelines.report.plan_table import print_plan
from pipelines.results.entry import entry_from
from pipelines.search.drive import run_study
from pipelines.search.vocabularies import TokensFailed
from pipelines.store.store import Store
from pipelines.store.study_folder import study_folder
from pipelines.store.study_record import resolved_yaml
from pipelines.study.catalogue import resolve_study, shipped_studies
from pipelines.study.config import Study
from pipelines.study.equal_budget import Budget, parse_budget
from pipelines.study.identity import study_identity
from pipelines.study.price import price_of
from pipelines.study.stated_budget import stated_budget
from pipelines.study.workload import Speed, Workload

CHOICES: dict[str, dict[str, Any]] = {
    "token": {"model.kind": "token"},
    "K=1": {"model.chunk_size": 1},
    "K=4": {"model.chunk_size": 4},
    "K=4 diffusion": {"model.chunk_size": 4, "model.head.kind": "diffusion"},
}


def study(**changes: Any) -> Study:
    search = {"parameters": [{"name": "model", "choices": CHOICES}]}
    return Study.model_validate({"name": "small", "corpus": {"source": "markov"}, "search": search, **changes})


def planned(tmp_path: Path, **changes: Any) -> Plan:
    return plan_study(study(**changes), Store(tmp_path))


def prices(plan: Plan) -> list[Any]:
    found = [trial.price for trial in plan.trials]
    assert all(price is not None for price in found), [trial.error for trial in plan.trials]
    return found


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("equal-flops", Budget("flops")),
        ("Equal-Total-FLOPs 3.5e12", Budget("total-flops", 3.5e12)),
        ("equal-tokens 1e6", Budget("tokens", 1e6)),
        ("equal-time 10min", Budget("time", 600.0)),
        ("equal-time 1.5 h", Budget("time", 5400.0)),
    ],
)
def test_words_and_amounts(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget
    assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("equal-flop", "did you mean 'equal-flops'"),
        ("equal-steps", "equal-"),
        ("", "known: equal-flops"),
        ("equal-flops lots", "positive number of FLOPs"),
        ("equal-tokens 0", "positive number of tokens"),
        ("equal-tokens 10min", "positive number of tokens"),
        ("equal-time 1e6", "90s, 10min"),
    ],
)
def test_other_words_are_refused_with_the_nearest(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_budget(text)
    with pytest.raises(ConfigurationError, match="budget"):
        resolve_study("smoke", [f"budget={text!r}"])


def test_without_a_word_identities_and_files_are_what_they_were(tmp_path: Path) -> None:
    for shipped in shipped_studies():
        found = resolve_study(shipped.name)
        assert found.budget is None
        assert "budget" not in yaml.safe_load(resolved_yaml(found))
    # As it was before there were budgets (k-ablation's language models are 3.5e12 FLOPs long already).
    plan = plan_study(resolve_study("smoke"), Store(tmp_path))
    with_word = plan_study(resolve_study("smoke", ["budget=equal-flops"]), Store(tmp_path))
    assert [each.stage for each in plan.stages] == [each.stage for each in with_word.stages]
    assert study_identity(resolve_study("smoke")) != study_identity(resolve_study("smoke", ["budget=equal-flops"]))


def test_equal_flops(tmp_path: Path) -> None:
    base = {"training": {"num_tokens": 2e6}}
    amount = planned(tmp_path, model=base, budget="equal-flops").budget
    assert amount is not None
    # What the base experiment costs: K = 4, two million tokens.
    flops = [price.model.flops.total for price in prices(planned(tmp_path, model=base, budget="equal-flops"))]
    assert flops == pytest.approx([amount.amount] * 4, rel=0.01)
    assert flops[2] == pytest.approx(prices(planned(tmp_path, model=base))[2].model.flops.total)


def test_equal_flops_with_the_autoencoders(tmp_path: Path) -> None:
    autoencoder = {"training": {"num_steps": 300}}
    found = prices(planned(tmp_path, autoencoder=autoencoder, budget="equal-total-flops 5e12"))
    assert [price.training_flops for price in found] == pytest.approx([5e12] * 4, rel=0.01)
    assert found[2].model.flops.total < 4.5e12


def test_equal_tokens(tmp_path: Path) -> None:
    found = prices(planned(tmp_path, budget="equal-tokens 1e6"))
    assert len({price.model.tokens for price in found}) == 1
    assert found[0].model.tokens == pytest.approx(1e6, rel=0.01)


def test_equal_time_is_fixed_when_the_study_first_starts(tmp_path: Path) -> None:
    fixed = study(budget="equal-time 100s")
    store = Store(tmp_path)
    folder = study_folder(fixed, store)

    def slow(workload: Workload) -> Speed:
        return Speed(0.5 / workload.experiment.model.chunk_size, 0.0)

    def fast(workload: Workload) -> Speed:
        return Speed(0.01, 0.0)

    before = [price.model.steps for price in prices(plan_study(fixed, store, slow))]
    assert before == [200, 200, 800, 800]
    assert not (folder / RESOLVED).exists(), "a plan fixes nothing"

    rule = rule_for(fixed, folder, slow, writes=True)
    stages = []
    for trial in plan_study(fixed, store, slow).trials:
        assert trial.experiment is not None
        assert rule(trial.experiment) == trial.experiment
        assert trial.graph is not None
        stages.append(trial.graph["language_model"])
    content = json.loads((folder / RESOLVED).read_text())
    assert content["seconds"] == 100
    assert sorted(entry["steps"] for entry in content["steps"].values()) == [200, 200, 800, 800]

    # Resumed on a machine that is fifty times as fast: the same stages.
    again = [trial.graph["language_model"] for trial in plan_study(fixed, store, fast).trials if trial.graph]
    assert again == stages
    assert [
        rule_for(fixed, folder, fast, writes=True)(trial.experiment)
        for trial in plan_study(fixed, store).trials
        if trial.experiment
    ]
    assert json.loads((folder / RESOLVED).read_text()) == content

    (folder / RESOLVED).write_text("{")
    with pytest.raises(ConfigurationError, match="is damaged"):
        plan_study(fixed, store, fast)


def test_equal_time_without_an_amount_is_the_base_experiments(tmp_path: Path) -> None:
    base = study(budget="equal-time", model={"training": {"num_steps": 300, "validate_every": 1000}})
    plan = plan_study(base, Store(tmp_path), lambda workload: Speed(0.1, 0.0))
    assert plan.budget is not None
    assert plan.budget.amount == pytest.approx(30.0, abs=1.0)
    assert [price.model.steps for price in prices(plan)] == pytest.approx([300] * 4, abs=10)


def test_too_small_a_budget_fails_the_trials_it_does_not_train(tmp_path: Path) -> None:
    plan = planned(tmp_path, model={"training": {"num_steps": 500, "warmup_steps": 100}}, budget="equal-flops 4e11")
    errors = [trial.error for trial in plan.trials]
    assert errors[2] is not None
    assert "steps of 2,048 tokens, but model.training.warmup_steps is 100" in errors[2]
    autoencoder = planned(tmp_path, budget="equal-total-flops 1e9")
    assert "does not pay for the autoencoder" in str(autoencoder.trials[1].error)
    assert "raise the budget" in str(autoencoder.trials[0].error)


@pytest.mark.parametrize(
    "search",
    [
        {"parameters": [{"name": "model.training.num_steps", "values": [10, 20]}]},
        {"parameters": [{"name": "x", "choices": {"a": {"model.training.num_flops": 1e9}}}]},
        {"parameters": [{"name": "x", "choices": {"a": {"model.training": {"num_tokens": 5}}}}]},
    ],
)
def test_two_who_say_how_long_contradict_each_other(search: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="leave one of the two out"):
        study(budget="equal-flops", search=search)


def test_what_is_equal_without_a_word() -> None:
    assert stated_budget(resolve_study("k-ablation")) == "equal-flops 3.5e+12"
    assert stated_budget(study(model={"training": {"num_tokens": 1e6}})) == "equal-tokens 1000000"
    assert stated_budget(study()) is None
    lengths = {"parameters": [{"name": "model.training.num_flops", "values": [1e9, 2e9]}]}
    assert stated_budget(study(model={"training": {"num_flops": 1e9}}, search=lengths)) is None
    assert stated_budget(study(budget="equal-time 60s")) == "equal-time 60s"


def test_words_for_readers(tmp_path: Path) -> None:
    assert budget_in_words("equal-flops 3500000000000") == "equal FLOPs (3.50e12, autoencoders not counted)"
    assert budget_in_words("equal-time 120s") == "equal wall time (2:00), as measured where it began"
    assert budget_in_words("by \x1b[31mmood") == "by �[31mmood"
    console = Console(file=io.StringIO(), width=100)
    print_plan(planned(tmp_path, budget="equal-tokens 1e6"), console)
    assert isinstance(console.file, io.StringIO)
    assert "Budget of each language model: equal tokens (1.00M)" in console.file.getvalue()


def few_words(tmp_path: Path) -> dict[str, Any]:
    """Settings of a study whose BPE is asked for far more entries than its text has words for."""
    lines = [json.dumps({"text": f"number {n} and number {n * n} " * 8}) for n in range(60)]
    (tmp_path / "few.jsonl").write_text("\n".join(lines))
    training = {"batch_size": 4, "sequence_length": 64, "warmup_steps": 2}
    size = {"hidden_size": 32, "intermediate_size": 32}
    return {
        "corpus": {"source": str(tmp_path / "few.jsonl")},
        "tokens": {"tokenizer": "bpe", "vocab_size": 8192},
        "autoencoder": {"latent_size": 8, **size, "training": training | {"num_steps": 5}},
        "model": {**size, "num_layers": 1, "num_attention_heads": 2, "training": training | {"num_steps": 20}},
        "evaluation": {"context_length": 64, "first_position": 8, "num_samples": 4, "max_windows": 8},
        "samples": {"num_prompts": 0},
        "tracking": {"enabled": False},
    }


@pytest.mark.slow
def test_a_budget_that_may_pay_for_the_words_that_are_found_is_not_refused(tmp_path: Path) -> None:
    """It does not pay for the autoencoder with all 8,192 entries, nor for a warm-up: with those of the text it does."""
    store = Store(tmp_path / "runs")
    wanted = few_words(tmp_path)
    wanted["search"] = {"parameters": [{"name": "model", "choices": {"K=2": {"model.chunk_size": 2}}}]}
    fixed = study(**wanted, budget="equal-total-flops 1e9")
    little, enough = plan_study(study(**wanted, budget="equal-total-flops 1e6"), store), plan_study(fixed, store)
    assert "does not pay for the autoencoder" in little.impossible[0], "with the fewest entries neither"
    assert enough.impossible == ()
    (trial,) = enough.trials
    assert trial.price is not None
    assert trial.price.vocab_size == 257
    assert trial.price.training_flops == pytest.approx(1e9, rel=0.05)
    told = shown(enough)
    assert "does not pay for all the entries that a BPE may get: prices are for 257" in told
    assert "at most" not in told
    (outcome,) = run_study(fixed, store, LocalExecutor(store))
    assert outcome.state == "complete", outcome.error
    spent = sum(outcome.results[kind]["training_flops"] for kind in ("autoencoder", "language_model"))
    assert spent == pytest.approx(1e9, rel=0.05)


@pytest.mark.slow
def test_the_vocabulary_that_a_bpe_finds_decides_what_is_equal(tmp_path: Path) -> None:
    choices = {"token": {"model.kind": "token"}, "K=2": {"model.chunk_size": 2}}
    wanted = few_words(tmp_path) | {"budget": "equal-total-flops"}
    wanted["search"] = {"parameters": [{"name": "model", "choices": choices}]}
    fixed, store = study(**wanted), Store(tmp_path / "runs")
    expected = plan_study(fixed, store)
    # The budget, which is the token model's, does not pay for an autoencoder of so many entries.
    assert [trial.price.vocab_size for trial in expected.trials if trial.price] == [8192, 257]
    assert expected.impossible == ()
    assert "at most 8,192" in shown(expected)

    outcomes = run_study(fixed, store, LocalExecutor(store))
    assert [outcome.state for outcome in outcomes] == ["complete"] * 2, [outcome.error for outcome in outcomes]
    size = outcomes[0].results["tokens"]["vocab_size"]
    assert size < 600
    base = fixed.experiment()
    amount = price_of(base, size).model.flops.total
    for outcome in outcomes:
        spent = sum(
            outcome.results.get(kind, {}).get("training_flops", 0.0) for kind in ("autoencoder", "language_model")
        )
        assert outcome.experiment is not None
        step = price_of(outcome.experiment, size).model
        assert abs(spent - amount) <= step.flops.total / step.steps, outcome.label
        assert entry_from(outcome, fixed).budget == str(Budget("total-flops", amount))
    again = plan_study(fixed, store)
    assert {planned.state for planned in again.stages} == {"cached"}
    assert "at most" not in shown(again)


def shown(plan: Plan) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_plan(plan, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.slow
def test_tokens_that_cannot_be_made_are_told_of_before_any_training(tmp_path: Path) -> None:
    wanted = few_words(tmp_path) | {"budget": "equal-flops"}
    (tmp_path / "few.jsonl").write_text('{"text": "one"}\n')
    fixed, store = study(**wanted, search={"parameters": []}), Store(tmp_path / "runs")
    with pytest.raises(TokensFailed, match="document"):
        run_study(fixed, store, LocalExecutor(store))
