"""Settings that no study can mean are refused by plan and run, and what is advised passes."""

from __future__ import annotations

import pytest

from calm_bench.config import Tokens
from calm_bench.overrides import ConfigurationError
from evals.tasks import LENGTHS_OF_ANSWERS, markov_text, stdlib_text
from pipelines.planning.preflight import check_study
from pipelines.study.catalogue import resolve_study
from pipelines.study.price import assumed_vocab_size

RATE = "model.training.learning_rate"
LAYERS = "model.num_layers"
FEW = ["benchmarks.tasks=[stdlib_choice]", "benchmarks.num_samples=1"]
LENGTH = "{name: model.training.sequence_length, values: [96]}"
SEARCH = ("search.sampler=tpe", "search.num_trials=4")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["benchmarks.tasks=[stdlib_choice,stdlib_choice]"], "benchmarks.tasks names stdlib_choice twice"),
        (
            ["benchmarks.tasks=[stdlib_choice]", "benchmarks.num_samples=1"],
            "num_samples=1 is too few: .* 2 draws or more",
        ),
        (["tracking.experiment=''"], "tracking.experiment is empty"),
        (["tracking.uri=http://"], "tracking.uri=http:// names no host"),
        (["samples.temperatures=[]"], "samples.temperatures is empty, so nothing would be written"),
        (
            [FEW[0], "benchmarks.max_length=12"],
            "stdlib_choice: an answer of 12 tokens .* raise max_length",
        ),
        (["search.objectives=[]"], "search.objectives is empty: name a metric"),
        (["search.objectives=[{metric: parameters},{metric: parameters}]"], "search.objectives names parameters twice"),
        (["search.parameters=[{name: seed, values: [1]}, {name: seed, values: [2]}]"], "two called 'seed'"),
        ([f"search.parameters=[{{name: {RATE}, values: [0.001, 1e-3]}}]"], "lists 0.001 twice"),
        ([f"search.parameters=[{{name: {RATE}, values: [0.001, fast]}}]", *SEARCH], f"{RATE}: input should be a valid"),
        ([f"search.parameters=[{{name: {LAYERS}, values: [1, 1.5]}}]", *SEARCH], "got a number with a fractional part"),
        (
            ["search.parameters=[{name: model.num_layers, low: 1, high: 3}]", *SEARCH],
            "is a whole number.*integer: true",
        ),
        (["search.parameters=[{name: x, choices: {'': {seed: 1}}}]"], "has a choice without a name"),
        (["execution.store="], "execution.store is empty"),
        (["search.num_trials=1"], "search.num_trials=1: a grid has as many trials as it has points, 2: leave it out"),
        (["search.num_trials=2", "search.each=[model]"], "as many trials as it has points, 1 in each search: leave it"),
    ],
)
def test_what_no_study_can_mean_is_refused(settings: list[str], message: str) -> None:
    settings = [one if one != "execution.store=" else "execution.store=''" for one in settings]
    with pytest.raises(ConfigurationError, match=message):
        check_study(resolve_study("smoke", settings))


@pytest.mark.parametrize(
    "settings",
    [
        ["search.parameters=[{name: model.num_layers, low: 1, high: 3, integer: true}]", *SEARCH],
        ["search.num_trials=2"],
        ["search.num_trials=null"],
        ["search.num_trials=1", "search.sampler=random"],
        ["search.parameters=[{name: model.num_layers, values: [1, 2.0]}]", *SEARCH],
        # The others of a grid can be run.
        [f"search.parameters=[{{name: {LAYERS}, values: [1, 1.5]}}]"],
        [f"search.parameters=[{{name: {RATE}, low: 1e-4, high: 1e-3}}]", *SEARCH],
        ["search.parameters=[{name: model.training.clip_norm, values: [1, true]}]"],
        # Right with another value of the other.
        [f"search.parameters=[{{name: model.chunk_size, values: [3]}}, {LENGTH}]", *SEARCH],
    ],
)
def test_what_may_be_meant_is_not(settings: list[str]) -> None:
    check_study(resolve_study("smoke", settings))


def test_a_misspelt_tokenizer_is_told_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="'byte' is not known without downloading it; did you mean 'bytes'"):
        assumed_vocab_size(Tokens(tokenizer="byte"))


def test_lengths_of_answers_are_those_of_the_tasks() -> None:
    assert LENGTHS_OF_ANSWERS["stdlib_choice"] == stdlib_text.CONTINUATION
    assert LENGTHS_OF_ANSWERS["markov_choice"] == markov_text.CONTINUATION
