"""What messages about the place of trials advise helps: it is taken out of the message itself and done."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from calm_bench.overrides import ConfigurationError
from pipelines.search.postgresql import PostgresqlError
from pipelines.search.trial_storage import Database, Journal, trial_storage, unused_trials
from pipelines.store.study_record import save_study
from pipelines.study.catalogue import resolve_study
from pipelines.study.config import Execution

URI = "postgresql://me@host/db"


def advised(pattern: str, message: object) -> re.Match[str]:
    found = re.search(pattern, str(message))
    assert found is not None, message
    return found


@pytest.fixture(autouse=True)
def _no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CALM_BENCH_OPTUNA_STORAGE", raising=False)


def test_a_journal_in_place_of_a_database_names_the_ways_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_study(tmp_path, resolve_study("smoke", [f"execution.optuna_storage={URI}"]))
    journal = trial_storage(Execution(), tmp_path, "smoke")
    setting, variable = advised(
        r"neither (\S+) nor (\w+) names that database", unused_trials(journal, tmp_path)
    ).groups()
    again = resolve_study("smoke", [f"{setting}={URI}"]).execution
    assert isinstance(trial_storage(again, tmp_path, "smoke"), Database)
    monkeypatch.setenv(variable, URI)
    assert isinstance(trial_storage(Execution(), tmp_path, "smoke"), Database)


def test_an_address_has_the_form_that_is_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        trial_storage(Execution(optuna_storage="sqlite:///x.db"), tmp_path, "smoke")
    assert Database(advised(r"by an address such as (\S+); unset", refused.value)[1], "smoke")
    assert isinstance(trial_storage(Execution(), tmp_path, "smoke"), Journal)
    with pytest.raises(PostgresqlError) as unread:
        Database("postgresql://me@host:port/db", "smoke")
    assert Database(advised(r"of the form (\S+)$", unread.value)[1], "smoke")
