"""Studies by names, names of folders and beginnings of these."""

from __future__ import annotations

from pathlib import Path

import pytest

from calm_bench.overrides import ConfigurationError
from pipelines.store.study_names import choose_studies, short_names, studies_called

FOLDERS = [
    Path("studies") / name for name in ("heads-aaaa1111", "smoke-12345678", "smoke-12349999", "smoke-7-abcd0000")
]


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("heads", ["heads-aaaa1111"]),
        ("he", ["heads-aaaa1111"]),
        ("smoke", ["smoke-12345678", "smoke-12349999"]),
        ("smoke-12345678", ["smoke-12345678"]),
        ("smoke-12345", ["smoke-12345678"]),
        ("smoke-7", ["smoke-7-abcd0000"]),
    ],
)
def test_a_name_means_its_studies(name: str, chosen: list[str]) -> None:
    assert [folder.name for folder in choose_studies([name], FOLDERS, "runs")] == chosen


def test_the_beginning_of_several_names_is_refused_with_ways_out_that_work() -> None:
    with pytest.raises(ConfigurationError, match="beginning of several studies") as refused:
        choose_studies(["smoke-1234"], FOLDERS, "runs")
    for name in ("smoke-12345678", "smoke-12349999"):
        assert name in str(refused.value)
        assert len(choose_studies([name], FOLDERS, "runs")) == 1


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'smoke'"):
        choose_studies(["smok e"], FOLDERS, "runs")
    assert studies_called("", FOLDERS) == []


def test_every_short_name_means_its_folder_alone() -> None:
    names = short_names(FOLDERS)
    assert names[FOLDERS[0]] == "heads"
    assert names[FOLDERS[1]] == "smoke-12345"
    for folder, name in names.items():
        assert studies_called(name, FOLDERS) == [folder]
