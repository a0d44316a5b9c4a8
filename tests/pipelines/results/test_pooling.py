"""Seeds of one configuration as one row."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from pipelines.report.tables import markdown
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard
from pipelines.results.pooling import pooled

Make = Callable[..., Entry]


def seeds(make_entry: Make, scores: list[float], **changes: object) -> list[Entry]:
    return [
        make_entry(label=f"K=4, seed={seed}", trial=seed, seed=seed, brierlm=score, brierlm_se=0.3, **settings)
        for seed, score in enumerate(scores)
        for settings in [{"configuration": "c", **changes}]
    ]


def test_both_kinds_of_variance_count(make_entry: Make) -> None:
    (row,) = pooled(seeds(make_entry, [4.0, 5.0, 6.0]))
    assert row.brierlm == pytest.approx(5.0)
    assert row.seed_error == pytest.approx(1 / math.sqrt(3))
    assert row.brierlm_se == pytest.approx(math.sqrt(0.09 + 1 / 3))
    assert row.seeds == (0, 1, 2)
    assert row.label == "K=4"


def test_speeds_of_writing_are_pooled_where_they_were_measured_alike(make_entry: Make) -> None:
    rows = [
        row.model_copy(update={"generated_tokens_per_second": speed, "generation": "sample T=1"})
        for row, speed in zip(seeds(make_entry, [4.0, 5.0]), (100.0, 300.0), strict=True)
    ]
    (row,) = pooled(rows)
    assert (row.generated_tokens_per_second, row.generation) == (200.0, "sample T=1")
    elsewhere = rows[1].model_copy(update={"generation": "sample T=0.5 (exact)"})
    unknown = rows[1].model_copy(update={"generated_tokens_per_second": None, "generation": ""})
    for other in (elsewhere, unknown):
        (row,) = pooled([rows[0], other])
        assert (row.generated_tokens_per_second, row.generation) == (None, "")


def test_equal_seeds_leave_the_documents_error(make_entry: Make) -> None:
    (row,) = pooled(seeds(make_entry, [4.0, 4.0, 4.0, 4.0]))
    assert row.brierlm_se == pytest.approx(0.3)


def test_one_seed_and_rows_of_unknown_configuration_stay(make_entry: Make) -> None:
    single = seeds(make_entry, [4.0])
    assert pooled(single) == single
    old = [make_entry(seed=seed, trial=seed) for seed in range(2)]
    assert pooled(old) == old


@pytest.mark.slow
def test_other_configurations_and_protocols_are_not_mixed(make_entry: Make) -> None:
    rows = [*seeds(make_entry, [1.0, 2.0]), *seeds(make_entry, [3.0, 4.0], configuration="d")]
    rows += seeds(make_entry, [5.0, 6.0], protocol_hash="other")
    assert sorted(row.brierlm for row in pooled(rows)) == [1.5, 3.5, 5.5]


def test_a_model_that_two_studies_share_counts_once(make_entry: Make) -> None:
    rows = seeds(make_entry, [1.0, 2.0])
    (row,) = pooled([*rows, *[entry.model_copy(update={"study": "zz"}) for entry in rows]])
    assert row.seeds == (0, 1)


def test_the_order_does_not_matter(make_entry: Make) -> None:
    rows = seeds(make_entry, [1.0, 4.0, 2.0, 8.0])
    shuffled = rows[:]
    random.Random(1).shuffle(shuffled)
    assert pooled(shuffled) == pooled(rows)


def test_negative_components_and_a_missing_autoencoder(make_entry: Make) -> None:
    (row,) = pooled(seeds(make_entry, [0.0, 0.0], brier=(0.2, -0.01, -0.02, 0.0), autoencoder_accuracy=None))
    assert row.brier[1] == pytest.approx(-0.01)
    assert row.autoencoder_accuracy is None


def test_pooling_again_changes_nothing(make_entry: Make) -> None:
    once = pooled(seeds(make_entry, [1.0, 2.0]))
    assert pooled(once) == once


def test_a_table_says_which_seeds(make_entry: Make) -> None:
    text = markdown(Leaderboard(pooled(seeds(make_entry, [4.0, 5.0]))))
    assert "0, 1" in text
    assert "over documents and seeds" in text
