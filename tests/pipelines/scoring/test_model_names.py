"""Models by labels, seeds, trial numbers and studies of one name."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from calm_bench.overrides import ConfigurationError
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard
from pipelines.scoring.model_names import ModelNames, trial_named
from pipelines.scoring.models import find_model, find_seeds
from pipelines.store.store import Store

Make = Callable[..., Entry]
FIRST, SECOND, SEEDED = (Path(name) for name in ("smoke-aaaa1111", "smoke-bbbb2222", "seeded-cccc3333"))


@pytest.fixture
def names(make_entry: Make) -> ModelNames:
    def row(study: str, trial: int, label: str, score: float, seed: int = 0, configuration: str = "") -> Entry:
        identity = f"{study}{trial}{label}"
        return make_entry(
            study=study.partition("-")[0],
            trial=trial,
            label=label,
            brierlm=score,
            seed=seed,
            configuration=configuration or identity,
            model_identity=identity,
        )

    return ModelNames(
        {
            FIRST: Leaderboard([row(FIRST.name, 0, "token", 9.0), row(FIRST.name, 1, "K=2, wide", 7.0)]),
            SECOND: Leaderboard([row(SECOND.name, 0, "token", 8.0), row(SECOND.name, 1, "K=2, wide", 6.0)]),
            SEEDED: Leaderboard(row(SEEDED.name, n, f"K=4, seed={n}", 5.0 - n, n, "the same") for n in range(3)),
        }
    )


@pytest.mark.parametrize(
    ("name", "identities"),
    [
        ("smoke-aaaa/token", ["smoke-aaaa11110token"]),
        ("smoke-bbbb#1", ["smoke-bbbb22221K=2, wide"]),
        ("#2", ["seeded-cccc33332K=4, seed=2"]),
        ("best", ["smoke-aaaa11110token"]),
        ("smoke-b/best", ["smoke-bbbb22220token"]),
        ("seeded/best", ["seeded-cccc33330K=4, seed=0"]),
        ("K=4@1", ["seeded-cccc33331K=4, seed=1"]),
        ("seeded/K=4@1", ["seeded-cccc33331K=4, seed=1"]),
        ("K=4, seed=1", ["seeded-cccc33331K=4, seed=1"]),
        ("K=4", [f"seeded-cccc3333{n}K=4, seed={n}" for n in range(3)]),
        ("K=2, wide", ["smoke-aaaa11111K=2, wide", "smoke-bbbb22221K=2, wide"]),
        ("K=4@7", []),
        ("nothing/token", []),
    ],
)
def test_a_name_means_its_models(names: ModelNames, name: str, identities: list[str]) -> None:
    assert [one.entry.model_identity for one in names.find(name)] == identities


@pytest.mark.parametrize("name", ["token", "smoke/token", "K=2, wide", "#0", "#1", "K=4", "seeded/K=4"])
def test_every_way_out_of_a_refusal_works_when_typed(names: ModelNames, name: str) -> None:
    with pytest.raises(ConfigurationError, match="give one of these names") as refused:
        names.one(name)
    listed = shlex.split(str(refused.value).partition("these names: ")[2].replace(", '", " '"))
    typed = [one.removesuffix(",") for one in listed]
    assert len(typed) == len(names.find(name))
    assert [names.one(one) for one in typed] == names.find(name)


def test_seeds_of_one_configuration_stand_together_and_nothing_else_does(names: ModelNames) -> None:
    assert [one.entry.seed for one in names.seeds("K=4")] == [0, 1, 2]
    with pytest.raises(ConfigurationError, match="means 2 models"):
        names.seeds("token")


def test_a_trial_without_a_score_has_a_name_too() -> None:
    assert trial_named("smoke-a#7", [FIRST, SECOND]) == (FIRST, 7)
    assert trial_named("smoke#7", [FIRST, SECOND]) is None
    assert trial_named("token", [FIRST]) is None


def test_a_row_whose_model_is_not_in_the_store_is_told_as_such(make_entry: Make, tmp_path: Path) -> None:
    """As where studies were copied without their stages."""
    folder = tmp_path / "studies" / FIRST.name
    folder.mkdir(parents=True)
    row = make_entry(study="smoke", label="token", model_identity="5f", model_folder="stages/language_model/5f/model")
    (folder / "leaderboard.json").write_text(Leaderboard([row]).to_json())
    for look in (find_model, find_seeds):
        with pytest.raises(ConfigurationError, match=r"smoke/token has a row .* bring stages/language_model/5f from"):
            look("token", Store(tmp_path))
