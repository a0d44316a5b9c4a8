"""Sums on disk: back as they were, compared with those of another model, refused where they are something else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from evals.evaluate import BrierResult, EvaluationError, MarkovSampler, evaluate_brierlm
from evals.stats import ClusterSums, paired_difference, pooled_difference
from evals.sums import FILE, ScoredSums, compare, load_sums, save_sums
from tests.evals.markov_texts import Documents, OnlySamples, blurred, language, protocol, text_of


def score(share: float = 0.0, kind: type[MarkovSampler] = MarkovSampler, **changes: object) -> BrierResult:
    truth = language()
    return evaluate_brierlm(kind(blurred(truth, share)), text_of(truth, 60), protocol(**changes))


def assert_equal(found: ScoredSums, expected: ScoredSums) -> None:
    for name in ("clusters", "totals", "counts"):
        np.testing.assert_array_equal(getattr(found.sums, name), getattr(expected.sums, name))
    if expected.noise is None:
        assert found.noise is None
    else:
        assert found.noise is not None
        np.testing.assert_array_equal(found.noise.per_sample, expected.noise.per_sample)
        np.testing.assert_array_equal(found.noise.per_pair, expected.noise.per_pair)
    blank = {"sums": expected.sums, "noise": None}
    assert replace(found, **blank) == replace(expected, **blank)


@pytest.mark.parametrize("kind", [MarkovSampler, OnlySamples])
@pytest.mark.parametrize("num_samples", [2, 6])
def test_what_was_saved_is_loaded(tmp_path: Path, kind: type[MarkovSampler], num_samples: int) -> None:
    scored = score(kind=kind, num_samples=num_samples).scored
    save_sums(scored, tmp_path / FILE)
    assert_equal(load_sums(tmp_path / FILE), scored)


def test_windows_instead_of_documents(tmp_path: Path) -> None:
    truth = language()
    text = Documents(np.stack([truth.sample_codes(document, 42 * 9) for document in range(3)]) + ord("a"))
    scored = evaluate_brierlm(MarkovSampler(truth), text, protocol()).scored
    assert scored.error_unit == "window"
    save_sums(scored, tmp_path / FILE)
    assert_equal(load_sums(tmp_path / FILE), scored)


def test_other_programs_can_read_the_file(tmp_path: Path) -> None:
    result = score()
    save_sums(result.scored, tmp_path / FILE)
    table = pa.ipc.open_file(str(tmp_path / FILE)).read_all()
    assert table.column_names == ["document", "positions", "brier_1", "brier_2", "brier_3", "brier_4"]
    assert table.num_rows == result.num_documents
    mean = table["brier_2"].to_numpy().sum() / table["positions"].to_numpy().sum()
    assert mean == pytest.approx(result.brier[1])


def test_models_are_compared_from_their_files(tmp_path: Path) -> None:
    right, wrong = score(), score(share=0.3)
    for name, result in (("right", right), ("wrong", wrong)):
        save_sums(result.scored, tmp_path / name)
    difference = compare(load_sums(tmp_path / "right"), load_sums(tmp_path / "wrong"))
    assert difference == paired_difference(right.sums, wrong.sums, seed=0)
    assert difference.value == pytest.approx(right.brierlm - wrong.brierlm)
    assert difference.components == pytest.approx(np.subtract(right.brier, wrong.brier))
    assert difference.interval[0] > 0
    assert difference.delta_error == pytest.approx(difference.standard_error, rel=0.15)


def test_an_estimator_does_not_hinder_a_comparison() -> None:
    exact, pairs = score(), score(kind=OnlySamples)
    assert exact.estimator != pairs.estimator
    assert abs(compare(exact.scored, pairs.scored).value) < 4 * compare(exact.scored, pairs.scored).standard_error


def test_what_has_no_common_positions_is_refused() -> None:
    first = score().scored
    with pytest.raises(EvaluationError, match="different protocols"):
        compare(first, score(position_stride=4).scored)
    truth = language()
    other = evaluate_brierlm(MarkovSampler(truth), text_of(truth, 50), protocol()).scored
    with pytest.raises(EvaluationError, match="same documents and positions"):
        compare(first, other)


@pytest.mark.parametrize("content", [None, b"", b"no arrow at all", "arrow"])
def test_files_that_hold_something_else(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / FILE
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        batch = pa.record_batch({"document": [1, 2]})
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
    with pytest.raises(EvaluationError, match=r"holds no sums of scores .* evaluate the model again"):
        load_sums(path)


def seeds(scores: list[float], documents: int = 40, noise: float = 0.02) -> list[ClusterSums]:
    """Sums of models whose Brier-n are all about ``scores``, over documents that are hard for all alike."""
    hard = np.random.default_rng(0).normal(0, noise, (documents, 1))
    return [ClusterSums(np.arange(documents), np.full((documents, 4), s) + hard, np.ones(documents)) for s in scores]


def test_pooled_seeds_have_both_variances() -> None:
    first, second = seeds([0.5, 0.52, 0.48, 0.5]), seeds([0.4, 0.43])
    found = pooled_difference(first, second, seed=0)
    assert found.value == pytest.approx(8.5, abs=0.01)
    expected = np.hypot(np.std([50, 52, 48, 50], ddof=1) / 2, np.std([40, 43], ddof=1) / np.sqrt(2))
    assert found.seed_error == pytest.approx(expected, rel=0.01)
    assert found.standard_error >= found.seed_error
    alone = pooled_difference(first[:1], second[:1], seed=0)
    assert alone == paired_difference(first[0], second[0], seed=0)
    assert alone.seed_error is None
    assert alone.standard_error < 0.1 * found.standard_error
    # One degree of freedom: two seeds say little.
    assert found.interval[1] - found.interval[0] > 4 * found.standard_error


def test_a_p_value_agrees_with_the_interval() -> None:
    same = pooled_difference(seeds([0.5]), seeds([0.5]), seed=0)
    assert same.p_value == 1.0
    rng = np.random.default_rng(1)
    for shift in (0.0, 0.002, 0.004, 0.006, 0.01):
        first, second = seeds([0.5])[0], seeds([0.5 + shift])[0]
        noisy = ClusterSums(second.clusters, second.totals + rng.normal(0, 0.02, (40, 1)), second.counts)
        found = paired_difference(noisy, first, seed=0)
        if abs(found.p_value - 0.05) > 0.003:
            assert (found.p_value < 0.05) == (found.interval[0] > 0 or found.interval[1] < 0)
