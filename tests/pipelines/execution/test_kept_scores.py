"""What the evaluation stage keeps beside its result, for comparisons of trials."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from evals.protocol import EvaluationError
from evals.sums import FILE, ScoredSums, compare, load_sums
from pipelines.study.config import Study
from pipelines.study.trial import TrialOutcome

Run = Callable[..., list[TrialOutcome]]


def kept(outcomes: list[TrialOutcome]) -> list[ScoredSums]:
    return [load_sums(outcome.folders["evaluation"] / FILE) for outcome in outcomes]


def test_trials_of_a_study_are_compared_from_their_folders(run: Run, tiny_study: Callable[..., Study]) -> None:
    evaluation = {"context_length": 32, "first_position": 8, "num_samples": 2}
    outcomes = run(tiny_study(evaluation=evaluation))
    sums = kept(outcomes)
    results = [outcome.results["evaluation"] for outcome in outcomes]
    assert [result["estimator"] for result in results] == ["exact", "all-pairs", "all-pairs"]
    assert {result["protocol"]["name"] for result in results} == {"matched"}
    assert len({result["protocol_hash"] for result in results}) == 1
    for scored, result in zip(sums, results, strict=True):
        assert scored.protocol_hash == result["protocol_hash"]
        assert scored.sums.means.tolist() == pytest.approx(result["brier"])
        difference = compare(sums[0], scored)
        assert difference.value == pytest.approx(results[0]["brierlm"] - result["brierlm"])

    # The same models under the paper's protocol: scored anew, and each K by itself.
    paper = run(tiny_study(evaluation={"protocol": "paper", "context_length": 32}))
    results = [outcome.results["evaluation"] for outcome in paper]
    assert [result["estimator"] for result in results] == ["two-prefix", "teacher-forced", "teacher-forced"]
    assert len({result["protocol_hash"] for result in results}) == 3
    assert [outcome.folders["language_model"] for outcome in paper] == [o.folders["language_model"] for o in outcomes]
    with pytest.raises(EvaluationError, match="different protocols"):
        compare(*kept(paper)[:2])
