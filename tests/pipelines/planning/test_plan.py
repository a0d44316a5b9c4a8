"""Plans of studies: nothing runs, nothing is downloaded, and what is promised is what a run would do."""

from __future__ import annotations

import io
import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from calm_bench.config import Corpus, Experiment, Tokens
from calm_bench.flops import training_flops, training_steps
from calm_bench.overrides import ConfigurationError
from calm_bench.tokens import ByteTokenizer
from pipelines.planning.calibration import Calibration
from pipelines.planning.estimate import estimate
from pipelines.planning.limit import Limit, OverBudget, check_limit
from pipelines.planning.machines import machine_named
from pipelines.planning.plan import Plan
from pipelines.planning.planner import plan_study
from pipelines.report.plan_table import SHOWN_TRIALS, print_plan, summary
from pipelines.store.store import Store
from pipelines.study.catalogue import resolve_study
from pipelines.study.config import Study
from pipelines.study.price import assumed_vocab_size, price_of

CHOICES = {
    "token": {"model.kind": "token"},
    "K=2": {"model.chunk_size": 2},
    "K=2 wide": {"model.chunk_size": 2, "model.head.width": 200},
}


def small_study(**changes: Any) -> Study:
    search = {"parameters": [{"name": "model", "choices": CHOICES}]}
    return Study.model_validate({"name": "small", "corpus": {"source": "markov"}, "search": search, **changes})


def shown(plan: Plan) -> str:
    console = Console(file=io.StringIO(), width=100)
    print_plan(plan, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_shared_stage_stands_and_costs_once(tmp_path: Path) -> None:
    plan = plan_study(small_study(), Store(tmp_path))
    kinds = [planned.stage.kind for planned in plan.stages]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "corpus": 1,
        "tokens": 1,
        "autoencoder": 1,
        "language_model": 3,
        "evaluation": 3,
        "samples": 3,
    }
    users = {planned.stage.kind: planned.trials for planned in plan.stages if planned.shared}
    assert users == {"corpus": (0, 1, 2), "tokens": (0, 1, 2), "autoencoder": (1, 2)}
    prices = [trial.price for trial in plan.trials if trial.price is not None]
    shared = prices[1].autoencoder
    assert shared is not None
    assert plan.flops == pytest.approx(sum(price.model.flops.total for price in prices) + shared.flops.total)


def test_what_the_store_has_is_not_to_be_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = plan_study(small_study(), store)
    assert list(tmp_path.iterdir()) == []
    by_kind = {planned.stage.kind: planned for planned in before.stages}
    done, begun = by_kind["autoencoder"].stage, before.trials[0].graph
    assert begun is not None
    store.open_work(done, "cpu")
    store.publish(done, {"accuracy": 1.0}, {})
    store.open_work(begun["language_model"], "cpu")

    after = plan_study(small_study(), store)
    states = {planned.stage: planned.state for planned in after.stages}
    assert states[done] == "cached"
    assert states[begun["language_model"]] == "begun"
    assert list(states.values()).count("new") == len(states) - 2
    assert after.flops == before.flops
    assert after.flops - after.flops_to_run == pytest.approx(by_kind["autoencoder"].flops)


def test_the_real_vocabulary_is_used_once_it_is_known(tmp_path: Path) -> None:
    store = Store(tmp_path)
    study = small_study(tokens={"tokenizer": "bpe", "vocab_size": 512})
    graph = plan_study(study, store).trials[0].graph
    assert graph is not None
    store.open_work(graph["tokens"], "cpu")
    store.publish(graph["tokens"], {"vocab_size": 300}, {})
    price = plan_study(study, store).trials[0].price
    assert price is not None
    assert price.vocab_size == 300


def test_an_impossible_trial_is_named_and_the_others_are_planned(tmp_path: Path) -> None:
    parameters = [{"name": "model.chunk_size", "values": [2, 3]}]
    plan = plan_study(small_study(search={"parameters": parameters}), Store(tmp_path))
    assert plan.trials[0].price is not None
    assert "not a multiple of model.chunk_size 3" in str(plan.trials[1].error)
    assert "cannot run" in shown(plan)
    (impossible,) = plan.impossible
    assert "trial 1 (chunk_size=3)" in impossible
    assert "not a multiple" in impossible


def test_budget_in_flops_buys_that_many(tmp_path: Path) -> None:
    experiment = Experiment.model_validate({"model": {"training": {"num_flops": 5e12}}})
    price = price_of(experiment)
    assert price.model.flops.total == pytest.approx(5e12, rel=0.01)
    assert price.model.tokens == price.model.steps * 8 * 256


@pytest.mark.parametrize(
    ("budget", "steps"),
    [({"num_steps": 7}, 7), ({"num_tokens": 10.4 * 8 * 256}, 10), ({"num_flops": 3e8}, 119), ({"num_tokens": 1}, 1)],
)
def test_a_budget_is_rounded_to_whole_steps(budget: dict[str, float], steps: int) -> None:
    training = Experiment.model_validate({"model": {"training": budget}}).model.training
    assert training_steps(training, flops_per_token=1234.5) == steps


def test_search_without_known_trials_is_priced_by_its_range(tmp_path: Path) -> None:
    parameters = [
        {"name": "model.head.num_samples", "low": 2, "high": 12, "integer": True},
        {"name": "model.training.learning_rate", "low": 1e-4, "high": 1e-2, "log": True},
    ]
    search = {"sampler": "tpe", "num_trials": 9, "parameters": parameters}
    study = small_study(search=search)
    plan = plan_study(study, Store(tmp_path))
    assert plan.sampled is not None
    ends = [
        price_of(study.experiment().model_copy(update={"model": with_samples(study, count)})).training_flops
        for count in (2, 12)
    ]
    assert plan.sampled.lowest == pytest.approx(ends[0])
    assert plan.sampled.highest == pytest.approx(ends[1])
    assert "9 trials" in summary(plan)


def with_samples(study: Study, count: int) -> Any:
    return study.model.model_copy(update={"head": study.model.head.model_copy(update={"num_samples": count})})


def test_paper_study_is_planned_and_priced_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a plan must not open connections")

    monkeypatch.setattr(socket, "socket", refuse)
    plan = plan_study(resolve_study("paper-k-ablation"), Store(tmp_path))
    assert all(trial.error is None for trial in plan.trials)
    prices = {trial.label: trial.price for trial in plan.trials}
    assert all(price is not None and price.vocab_size == 128256 for price in prices.values())
    token = [price for price in prices.values() if price is not None and price.autoencoder is None]
    assert token
    for trial in plan.trials:
        assert trial.price is not None
        assert trial.price.model.tokens == pytest.approx(250_000 * 2.0e6, rel=0.05)
        assert trial.price.model.steps == pytest.approx(250_000, rel=0.05)
    assert "autoencoder K=4" in shown(plan)


def test_calm_m_costs_what_the_paper_says() -> None:
    """Within the 5 % by which our accounting differs: shared conditions computed once, the encoder's pass included."""
    settings = {
        "tokens": {"tokenizer": "meta-llama/Meta-Llama-3-8B"},
        "autoencoder": {"latent_size": 128, "hidden_size": 512, "intermediate_size": 1280},
        "model": {
            "hidden_size": 1024,
            "intermediate_size": 2752,
            "num_layers": 16,
            "num_attention_heads": 16,
            "head": {"num_blocks": 4},
            "training": {"num_tokens": 5e11, "sequence_length": 8192, "batch_size": 244},
        },
    }
    experiment = Experiment.model_validate(settings)
    price = price_of(experiment)
    assert price.model.flops.total == pytest.approx(3.7e20, rel=0.06)
    assert price.inference.total == pytest.approx(2.9e8, rel=0.01)
    per_token = training_flops(experiment.model, experiment.autoencoder, 128256, 2048).total
    assert price.model.flops.total == pytest.approx(per_token * price.model.tokens)


def test_vocabulary_sizes_for_pricing(tmp_path: Path) -> None:
    assert assumed_vocab_size(Tokens()) == 257
    assert assumed_vocab_size(Tokens(tokenizer="bpe", vocab_size=600)) == 600
    folder = tmp_path / "gpt2-something"
    folder.mkdir()
    with pytest.raises(ConfigurationError, match=r"gpt2-something has no tokenizer\.json"):
        assumed_vocab_size(Tokens(tokenizer=str(folder)))
    ByteTokenizer().save(folder)
    assert assumed_vocab_size(Tokens(tokenizer=str(folder))) == 257
    assert assumed_vocab_size(Tokens(tokenizer="some/tokenizer", vocab_size=32000)) == 32000
    known = {"meta-llama/Llama-3.1-8B": 128256, "meta-llama/Llama-2-7b-chat-hf": 32000, "gpt2-medium": 50257}
    for name, size in known.items():
        assert assumed_vocab_size(Tokens(tokenizer=name)) == size
    # Others may publish another vocabulary under a similar name.
    for name in ("some/tokenizer", "some/gpt2", "some/llama-3-8b", "my-gpt2-small", "gpt2/extended"):
        with pytest.raises(ConfigurationError, match=r"set tokens\.vocab_size"):
            assumed_vocab_size(Tokens(tokenizer=name))


@pytest.mark.parametrize("name", ["some/gpt2", "openai-community/gpt2"])
def test_what_a_price_takes_for_granted_of_a_vocabulary_is_said(name: str, tmp_path: Path) -> None:
    study = small_study(tokens={"tokenizer": name, "vocab_size": 50257, "revision": "0" * 40})
    plan = plan_study(study, Store(tmp_path))
    assert plan.out_of_sight == ((name, 50257),)
    said = f"The tokenizer {name} is not in the hub's cache here: prices take it to have 50,257 tokens"
    assert said in " ".join(shown(plan).split())
    expected = estimate(plan, Store(tmp_path), machine_named("local", study.execution), Calibration())
    with pytest.raises(OverBudget, match=re.escape(said)):
        check_limit(Limit("flops", 1.0), plan, expected)
    assert plan_study(small_study(), Store(tmp_path)).out_of_sight == ()


def test_json_says_the_same(tmp_path: Path) -> None:
    plan = plan_study(small_study(), Store(tmp_path))
    found = json.loads(json.dumps(plan.to_dict()))
    assert found["training_flops"] == pytest.approx(plan.flops)
    assert [trial["label"] for trial in found["trials"]] == list(CHOICES)
    parts = found["trials"][1]["trainings"]["language_model"]
    assert sum(parts["flops_by_part"].values()) == pytest.approx(parts["flops"])


def test_a_local_corpus_is_named_by_its_content(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    for path in (first, second):
        path.write_text("one text\n" * 50)
    stages = [
        plan_study(small_study(corpus=Corpus(source=str(path)).model_dump()), Store(tmp_path / "store")).stages
        for path in (first, second)
    ]
    assert [planned.stage.identity for planned in stages[0]] == [planned.stage.identity for planned in stages[1]]


def test_a_long_search_is_printed_in_part_and_summed_up_in_a_line(tmp_path: Path) -> None:
    rates = {"name": "model.training.learning_rate", "values": [1e-3 * n for n in range(1, 31)]}
    plan = plan_study(small_study(search={"parameters": [rates]}), Store(tmp_path))
    text = shown(plan)
    assert "... and 6 more trials, training FLOPs" in text
    assert text.count("evaluation of the language model") == SHOWN_TRIALS
    assert "30 trials, 93 stages" in text
    console = Console(file=io.StringIO(), width=100)
    print_plan(plan, console, limit=None)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("evaluation of the language model") == 30
