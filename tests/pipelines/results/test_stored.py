"""Rows of studies that share a name say in what these differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipelines.results.columns import columns_of, find_column
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard, load_board
from pipelines.results.pooling import pooled
from pipelines.results.stored import variants_of
from pipelines.results.view import filtered
from pipelines.store.layout import LEADERBOARD_FILE
from pipelines.store.store import Store
from pipelines.store.study_folder import study_folder
from pipelines.store.study_record import save_study
from pipelines.study.catalogue import resolve_study

Make = Callable[..., Entry]


def begun(store: Store, *settings: str) -> Path:
    study = resolve_study("smoke", list(settings))
    folder = study_folder(study, store)
    save_study(folder, study)
    return folder


def test_what_differs_between_studies_of_one_name_is_said(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = begun(store), begun(store, "model.training.num_flops=2e10", "model.head.num_targets=16")
    other = begun(store, "name=another")
    found = variants_of([first, second, other])
    assert set(found) == {first, second}
    assert found[first] == f"{first.name[:10]}: num_targets=32, num_flops=3e+10"
    assert found[second] == f"{second.name[:10]}: num_targets=16, num_flops=2e+10"


def test_a_seed_is_no_difference_of_settings(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = begun(store), begun(store, "seed=1", "execution.backend=local")
    assert [found.count(":") for found in variants_of([first, second]).values()] == [0, 0]


def test_a_board_knows_whose_it_is(tmp_path: Path, make_entry: Make) -> None:
    folder = tmp_path / "studies" / "smoke-abcd1234"
    folder.mkdir(parents=True)
    row = make_entry(
        settings={"seed": 1, "model.training.optimizer.learning_rate": 1e-3, "model.head": {"kind": "flow"}}
    )
    (folder / LEADERBOARD_FILE).write_text(Leaderboard([row]).to_json())
    (read,) = load_board(folder) or ()
    assert read.study_identity == "abcd1234"
    assert dict(read.settings)["model.head"] == '{"kind": "flow"}'
    assert read.model_copy(update={"study_identity": ""}) == row


def test_rows_are_shown_and_filtered_by_what_was_searched(make_entry: Make) -> None:
    rate = "model.training.optimizer.learning_rate"
    rows = [make_entry(trial=n, settings={rate: 10.0**-n, "model.gated": n == 2}) for n in (1, 2, 3)]
    assert [row.trial for row in filtered(rows, ["learning_rate<0.05"])] == [2, 3]
    assert [row.trial for row in filtered(rows, [f"{rate}=0.1", "gated=false"])] == [1]
    assert find_column("optimizer.learning_rate", columns_of(rows)).cell(rows[2]) == "0.001"
    assert f"setting {rate}" in Leaderboard(rows).to_csv().splitlines()[0]


def test_pooled_seeds_keep_what_all_share(make_entry: Make) -> None:
    rows = [
        make_entry(seed=n, configuration="c", model_identity=str(n), variant="v", settings={"seed": n, "a": 1})
        for n in (0, 1)
    ]
    (row,) = pooled(rows)
    assert (dict(row.settings), row.variant) == ({"a": 1}, "v")
