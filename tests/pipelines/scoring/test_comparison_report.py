"""What ``compare`` says of two models."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from evals.stats import ClusterSums
from evals.sums import ScoredSums, compare_seeds
from pipelines.scoring.comparison_report import both_clipped, comparison_lines


def scored(means: tuple[float, ...], seed: int = 0) -> ScoredSums:
    """Forty documents of 100 positions, whose scores vary by 0.01 around ``means``."""
    counts = np.full(40, 100.0)
    noise = np.random.default_rng(seed).normal(0.0, 0.01, (40, len(means)))
    sums = ClusterSums(np.arange(40), (np.array(means) + noise - noise.mean(axis=0)) * 100.0, counts)
    return ScoredSums(sums, None, (1, 2, 3, 4), "abc", "two-sample", 2, "document")


def lines_of(first: ScoredSums, second: ScoredSums) -> list[str]:
    return comparison_lines(("ours", "theirs"), ([first], [second]), compare_seeds([first], [second]))


def test_two_clipped_models_are_told_apart_by_their_components() -> None:
    first, second = scored((0.2, 0.1, 0.05, -0.3)), scored((0.1, 0.1, 0.15, -0.3), seed=1)
    assert both_clipped([first], [second])
    lines = lines_of(first, second)
    assert "ours and theirs both score 0 (clipped" in lines[0]
    assert not [line for line in lines if "p = 1" in line or "interval" in line]
    parts = [line.strip() for line in lines if line.startswith("  Brier-")]
    assert parts[0].startswith("Brier-1  10.0")
    assert [part.partition(": ")[2] for part in parts] == [
        "ours is better",
        "the difference may be chance",
        "theirs is better",
        "the difference may be chance",
    ]


def test_a_model_that_is_not_clipped_is_compared_by_brierlm() -> None:
    first, second = scored((0.2, 0.1, 0.05, 0.04)), scored((0.1, 0.1, 0.15, -0.3), seed=1)
    assert not both_clipped([first], [second])
    lines = lines_of(first, second)
    assert lines[0].startswith("BrierLM of ours minus that of theirs: ")
    assert lines[1].startswith("95 % interval ")
    assert lines[1].endswith("p < 0.001: ours is better")


def test_few_seeds_tell_little_of_a_component_either() -> None:
    """Of two seeds a side 2.5 standard errors may be chance: Student's t with two degrees of freedom asks for 4.3."""
    ours = [scored((0.20 + apart, 0.1, 0.05, -0.3), 1) for apart in (-0.02, 0.02)]
    theirs = [scored((0.13 + apart, 0.1, 0.05, -0.3), 1) for apart in (-0.02, 0.02)]
    lines = comparison_lines(("ours", "theirs"), (ours, theirs), compare_seeds(ours, theirs))
    (first,) = [line.strip() for line in lines if line.startswith("  Brier-1")]
    assert first == "Brier-1  7.0±2.8: the difference may be chance"
    assert " and over seeds (2 and 2); " in lines[-1], "that of BrierLM is 0 and tells nothing of these"


def test_a_small_difference_has_an_interval_with_digits() -> None:
    """A score of a thousandth has errors of a thousandth: the interval was ``0.00 to 0.00``."""
    first, second = scored((0.2, 0.1, 0.05, 0.04)), scored((0.1, 0.1, 0.06, 0.03), seed=1)
    small = [replace(one, sums=replace(one.sums, totals=one.sums.totals / 1000)) for one in (first, second)]
    large, tiny = (
        [float(end) for end in re.findall(r"-?[0-9.]+", lines[1].partition(",")[0])[1:]]
        for lines in (lines_of(first, second), lines_of(*small))
    )
    assert large[0] > 0
    assert [1000 * end for end in tiny] == pytest.approx(large, rel=0.02)
