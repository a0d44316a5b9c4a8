"""Errors of differences: paired by document where rows carry what that needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evals.replicates import Replicates, deviations, leave_groups_out
from evals.stats import ClusterSums, cluster_sums, delta_standard_errors, paired_difference
from evals.sums import FILE, ScoredSums, save_sums
from pipelines.report.captions import caption
from pipelines.results.baseline import compare_boards
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard
from pipelines.results.pairing import difference, differences
from pipelines.results.pooling import pooled
from pipelines.study.kinds.replicates import stored_replicates

Make = Callable[..., Entry]


def sums_of_models(count: int, documents: int = 80, seed: int = 0) -> list[ClusterSums]:
    """Models that differ by little on documents that are hard or easy for all of them."""
    stream = np.random.default_rng(seed)
    index = np.repeat(np.arange(documents), 25)
    hard = np.repeat(stream.normal(0, 0.06, documents), 25)[:, None]
    level = np.array([0.4, 0.25, 0.15, 0.1])
    return [
        cluster_sums(level + 0.005 * number + hard + stream.normal(0, 0.02, (len(index), 4)), index)
        for number in range(count)
    ]


def row(make_entry: Make, sums: ClusterSums, number: int = 0, **changes: object) -> Entry:
    replicates = leave_groups_out(sums)
    spread = float(np.sqrt((deviations(replicates.scores) ** 2).sum()))
    from evals.brier import brierlm

    score = float(brierlm(sums.means))
    return make_entry(
        trial=number,
        label=f"model {number}",
        model_identity=str(number),
        **{"brierlm": score, "brierlm_se": spread, "replicates": replicates.to_text()} | changes,
    )


def size(values: NDArray[np.float64]) -> float:
    return float(np.sqrt((deviations(values) ** 2).sum()))


def test_the_jackknife_agrees_with_the_closed_form_and_with_the_paired_bootstrap() -> None:
    first, second = sums_of_models(2)
    one, other = leave_groups_out(first), leave_groups_out(second)
    closed = delta_standard_errors(first)[1]
    assert closed is not None
    assert size(one.scores) == pytest.approx(closed, rel=0.1)
    paired = paired_difference(first, second, seed=0)
    assert size(one.scores - other.scores) == pytest.approx(paired.standard_error, rel=0.15)
    assert size(one.scores - other.scores) < 0.3 * size(one.scores)


def test_groups_of_documents_estimate_the_same_error() -> None:
    (sums,) = sums_of_models(1, documents=400)
    grouped, single = leave_groups_out(sums), leave_groups_out(sums, num_groups=400)
    assert len(grouped.scores) == 100
    assert len(grouped.to_text()) < 600
    # 100 groups know the error to 7 %.
    assert size(grouped.scores) == pytest.approx(size(single.scores), rel=0.25)


def test_text_brings_the_numbers_back_and_other_text_is_refused() -> None:
    replicates = leave_groups_out(sums_of_models(1)[0])
    again = Replicates.from_text(replicates.to_text())
    assert again.documents == replicates.documents
    assert again.scores == pytest.approx(replicates.scores, rel=1e-6)
    for text in ("", "x", "x:", "x:!!!", "x:AAAA", "x:AADAfwAAwH8AAMB/"):
        with pytest.raises(ValueError, match=r"not the scores|base64|buffer size"):
            Replicates.from_text(text)
    with pytest.raises(ValueError, match="three"):
        leave_groups_out(ClusterSums(np.arange(2), np.ones((2, 4)), np.ones(2)))


def test_rows_are_paired_only_over_the_same_documents(make_entry: Make) -> None:
    here, there = sums_of_models(2)
    (elsewhere,) = sums_of_models(1, documents=60)
    rows = [row(make_entry, sums, number) for number, sums in enumerate((here, there, elsewhere))]
    rows += [row(make_entry, here, 3, replicates=""), row(make_entry, here, 4, replicates="damaged")]
    rows += [row(make_entry, here, 5, brierlm=0.0)]
    found = differences(rows)
    assert found.paired[0, 1]
    assert found.paired.sum() == 2 + len(rows)
    assert found.errors[0, 1] < 0.3 * found.errors[0, 2]
    assert found.errors[0, 3] == pytest.approx(np.hypot(rows[0].brierlm_se, rows[3].brierlm_se))
    assert difference(rows[1], rows[0]).is_paired
    other = rows[1].model_copy(update={"protocol_hash": "other"})
    assert not difference(other, rows[0]).is_paired


def test_pairs_give_ranks_that_single_errors_do_not_and_the_caption_says_so(make_entry: Make) -> None:
    rows = [row(make_entry, sums, number) for number, sums in enumerate(sums_of_models(3))]
    (paired,) = Leaderboard(rows).groups
    (alone,) = Leaderboard([entry.model_copy(update={"replicates": ""}) for entry in rows]).groups
    (mixed,) = Leaderboard([rows[0].model_copy(update={"replicates": ""}), *rows[1:]]).groups
    assert paired.ranks == (1, 2, 3)
    assert alone.ranks == (1, 1, 1)
    assert "with documents paired. " in caption(paired)
    assert "two errors summed" in caption(alone)
    assert "paired where both" in caption(mixed)
    # The same from a file, which is all that MLflow or another machine has.
    (again,) = Leaderboard.from_json(Leaderboard(rows).to_json()).groups
    assert again.ranks == paired.ranks


def test_seeds_keep_their_own_error_when_documents_are_paired(make_entry: Make) -> None:
    models = sums_of_models(4)
    rows = [
        row(make_entry, sums, number, configuration="ab"[number // 2], seed=number % 2)
        for number, sums in enumerate(models)
    ]
    first, second = pooled(rows)
    apart = difference(second, first)
    assert apart.is_paired
    assert first.model_identities == ("0", "1")
    seeds = np.hypot(first.seed_error or 0, second.seed_error or 0)
    documents = size(
        np.mean([leave_groups_out(m).scores for m in models[2:]], axis=0)
        - np.mean([leave_groups_out(m).scores for m in models[:2]], axis=0)
    )
    assert apart.error == pytest.approx(np.hypot(seeds, documents), rel=1e-3)
    assert apart.value == pytest.approx(second.brierlm - first.brierlm)
    without = pooled([rows[0].model_copy(update={"replicates": ""}), *rows[1:]])
    assert not difference(*without).is_paired


@pytest.mark.parametrize(("hard", "own"), [(0.06, 0.1), (0.0, 0.25)])
def test_the_error_of_a_mean_over_seeds_is_what_it_varies_by(make_entry: Make, hard: float, own: float) -> None:
    """Three seeds on other documents and with other draws, again and again: documents that are as hard for all of them
    count whole, what is each seed's own counts by a third, and a third more for standing in the seeds' variance too."""
    stream = np.random.default_rng(1)
    index = np.repeat(np.arange(60), 10)
    means, stated, alone = [], [], []
    for number in range(300):
        level = 0.4 + np.repeat(stream.normal(0, hard, 60), 10)[:, None]
        seeds = [cluster_sums(level + stream.normal(0, own, (len(index), 4)), index) for _ in range(3)]
        rows = [row(make_entry, s, 3 * number + seed, configuration="c", seed=seed) for seed, s in enumerate(seeds)]
        (one,) = pooled(rows)
        means.append(one.brierlm)
        stated.append(one.brierlm_se**2)
        alone.append(np.mean([each.brierlm_se**2 for each in rows]))
    varies, common = np.var(means), hard**2 / 60 * 100**2
    assert varies == pytest.approx(np.mean(alone) - 2 / 3 * (np.mean(alone) - common), rel=0.25)
    assert np.mean(stated) == pytest.approx(2 * varies - common, rel=0.25)
    (bare,) = pooled([each.model_copy(update={"replicates": ""}) for each in rows])
    assert bare.brierlm_se > one.brierlm_se


def test_a_baseline_is_compared_in_pairs(make_entry: Make) -> None:
    old, new = sums_of_models(2)
    before, after = row(make_entry, old), row(make_entry, new).model_copy(update={"label": "model 0"})
    assert [change.verdict for change in compare_boards([before], [after])] == ["better"]
    bare = [entry.model_copy(update={"replicates": ""}) for entry in (before, after)]
    assert [change.verdict for change in compare_boards(bare[:1], bare[1:])] == ["neither"]


def test_an_evaluation_s_folder_gives_its_replicates(tmp_path: Path) -> None:
    (sums,) = sums_of_models(1)
    assert stored_replicates(None, "p") == ""
    assert stored_replicates(tmp_path, "p") == ""
    save_sums(ScoredSums(sums, None, (1, 2, 3, 4), "p", "all-pairs", 8, "document"), tmp_path / FILE)
    assert stored_replicates(tmp_path, "p") == leave_groups_out(sums).to_text()
    assert stored_replicates(tmp_path, "another") == ""
    (tmp_path / FILE).write_bytes(b"no arrow")
    assert stored_replicates(tmp_path, "p") == ""


def test_few_seeds_widen_intervals_and_ranks_by_students_t(make_entry: Make) -> None:
    """Three seeds that vary by 0.1 and documents that say nothing: 2.776 errors of the mean, not 1.96."""
    rows = [
        make_entry(
            label=label, configuration=label, trial=trial, seed=seed, brierlm=score + 0.1 * (seed - 2), brierlm_se=0.0
        )
        for trial, (label, score) in enumerate([("first", 4.0), ("second", 3.8)])
        for seed in (1, 2, 3)
    ]
    first, second = pooled(rows)
    apart, error = difference(first, second), np.sqrt(2 / 3) * 0.1
    assert (apart.value, apart.error, apart.freedom) == pytest.approx((0.2, error, 4.0))
    assert apart.interval == pytest.approx((0.2 - 2.776 * error, 0.2 + 2.776 * error), abs=1e-3)
    # By normal errors they would differ: 0.2 is 2.45 of them.
    assert apart.p_value == pytest.approx(0.0705, abs=1e-3)
    found = differences([first, second])
    assert found.margins[0, 1] == pytest.approx(2.776 * error, rel=1e-3)
    (group,) = Leaderboard([first, second]).groups
    assert list(group.ranks) == [1, 1]
    assert difference(rows[0], rows[3]).freedom == np.inf
