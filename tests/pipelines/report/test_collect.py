"""From a store's files to what a report shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from calm_bench.atomic import write_json
from calm_bench.overrides import ConfigurationError
from pipelines.report.boards import Origin, boards_of
from pipelines.report.collect import collect, study_folders
from pipelines.report.columns import columns_for
from pipelines.report.links import Links
from pipelines.results.leaderboard import Leaderboard
from pipelines.results.looks import looks_of
from pipelines.store.estimate_record import ComparedTime, EstimateRecord
from pipelines.store.store import Store
from pipelines.store.trial_record import TrialRecord
from pipelines.study.stage_kind import STAGE_KINDS, StageKind


def entries_in(folder: Path) -> list[Any]:
    return list(Leaderboard.from_json((folder / "leaderboard.json").read_text()))


def test_a_study_is_shown_whole(builder: Any) -> None:
    folder = builder.study(5, ended=[{"label": "K=16", "state": "failed", "error": "lost\nits worker"}])
    report = collect(builder.store, [folder])
    (board,), (study,) = report.boards, report.studies
    assert [row.label for row in board.rows] == [entry.label for entry in entries_in(folder)]
    assert [family["name"] for family in report.families] == ["token", "K=1", "K=2", "K=4", "K=8"]
    assert [curves.kind for curves in report.curves] == ["language_model"] * 5 + ["autoencoder"] * 4
    assert list(report.trainings) == [("language_model", "Language models"), ("autoencoder", "Autoencoders")]
    trained = {identity for row in board.rows for member in row.members for identity in member.trained.values()}
    assert {curves.model for curves in report.curves} == trained
    assert len(report.autoencoders) == 4
    assert {text.temperature for writing in report.writings for text in writing.texts} == {1.0, 0.5}
    assert [(trial.label, trial.state) for trial in study.ended] == [("K=16", "failed")]
    assert study.ended[0].url.endswith(f"/runs/{5:032x}")
    assert board.headline["sentences"]
    assert study.finished == "2026-11-22 08:40"
    assert ("device", "cpu: x86_64") in study.environment
    work = {stage["kind"]: stage["count"] for stage in study.stages}
    assert work == {"corpus": 1, "tokens": 1, "autoencoder": 4, "language_model": 5, "evaluation": 5, "samples": 5}


def test_a_training_of_a_kind_from_elsewhere_shows_its_curves(builder: Any) -> None:
    kind = StageKind("tuned", lambda *_: {}, heading="Tuned models", reads=("tokens",), streams_metrics=True)
    if kind.name not in STAGE_KINDS.names():
        STAGE_KINDS.register(kind.name, kind)
    folder = builder.study(2)
    stage = builder.store.root / "stages" / "tuned" / "0123456789abcdef"
    stage.mkdir(parents=True)
    write_json(stage / "config.json", {"kind": "tuned", "revision": 1, "identity": stage.name, "config": {}})
    write_json(stage / "result.json", {})
    line = {"step": 1, "flops": 5.0, "time": 0.1, "split": "train", "metrics": {"loss": 1.5}}
    (stage / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    first, *others = json.loads((folder / "trials.json").read_text())
    write_json(folder / "trials.json", [first | {"stages": first["stages"] | {"tuned": stage.name}}, *others])
    report = collect(builder.store, [folder])
    assert ("tuned", "Tuned models") in report.trainings
    (curves,) = [each for each in report.curves if each.kind == "tuned"]
    assert (curves.model, curves.train.flops, curves.train.terms) == (stage.name, [5.0], {"loss": [1.5]})
    (row,) = [row for row in report.boards[0].rows if "tuned" in row.members[0].trained]
    assert row.members[0].trial == 0


def test_speeds_of_writing_are_shown_where_they_were_measured(builder: Any) -> None:
    folder = builder.study(3)
    (board,) = collect(builder.store, [folder]).boards
    assert "generated_tokens_per_second" in [column.key for column in board.columns if column.shown]
    assert [row.values["generated_tokens_per_second"] for row in board.rows] == [
        entry.generated_tokens_per_second for entry in entries_in(folder)
    ]
    assert "measured with sample T=1, 2 texts at once, cpu: x86_64" in board.caption
    rows = [entry.model_copy(update={"generated_tokens_per_second": None}) for entry in entries_in(folder)]
    assert "generated_tokens_per_second" not in [column.key for column in columns_for(rows)]


def test_it_says_nothing_of_the_machines_name_and_paths(builder: Any) -> None:
    folder = builder.study(3)
    text = json.dumps(collect(builder.store, [folder]).to_dict())
    assert "secret-host" not in text
    assert str(builder.store.root) not in text
    assert "stages/language_model" not in text


def test_numbers_that_became_other_trials_lead_to_no_other_model(builder: Any) -> None:
    """A search that is made longer, whose leaderboard is still the one of before: 2 and 3 were final trials."""
    folder = builder.study(4)
    trials = json.loads((folder / "trials.json").read_text())
    new = [
        {
            **trials[number],
            "number": number,
            "stages": dict.fromkeys(trials[number]["stages"], f"{number:016x}"),
            "violations": ["parameters <= 1 (found 2)"],
        }
        for number in (2, 3)
    ]
    write_json(folder / "trials.json", [*trials[:2], *new, trials[2] | {"number": 4}])
    record = json.loads((folder / "mlflow.json").read_text())
    write_json(folder / "mlflow.json", record | {"runs": {str(n): f"{n:032x}" for n in range(5)}})
    (board,) = collect(builder.store, [folder]).boards
    members = {member.model: (member.trial, member.url, member.trained) for row in board.rows for member in row.members}
    kept, gone = (trial["stages"]["language_model"] for trial in trials[2:])
    assert members[kept][0] == 4
    assert members[kept][1].endswith(f"/runs/{4:032x}")
    assert members[kept][2]["autoencoder"] == trials[2]["stages"]["autoencoder"]
    assert members[gone][1:] == (None, {"language_model": gone})
    assert not any(row.violations for row in board.rows)


def test_a_store_without_its_stages_still_has_a_board(builder: Any, tmp_path: Path) -> None:
    folder = builder.study(4)
    (builder.store.root / "stages").rename(tmp_path / "swept")
    report = collect(builder.store, [folder])
    assert len(report.boards[0].rows) == 4
    assert list(report.curves) == list(report.writings) == list(report.autoencoders) == []
    assert "known by its hash alone" in " ".join(report.boards[0].protocol)


def test_a_study_that_has_scored_nothing_yet_has_a_page(builder: Any) -> None:
    folder = builder.study(0, ended=[{"label": "K=4", "state": "open", "error": None}])
    (folder / "leaderboard.json").unlink()
    report = collect(builder.store, [folder])
    assert list(report.boards) == []
    assert [trial.state for trial in report.studies[0].ended] == ["open"]


def test_one_row_is_enough(builder: Any) -> None:
    report = collect(builder.store, [builder.study(1)])
    assert [row.rank for row in report.boards[0].rows] == [1]


def test_several_protocols_are_kept_apart(builder: Any) -> None:
    folders = [builder.study(4), builder.study(2, name="other", protocol_hash="f" * 16)]
    report = collect(builder.store, folders)
    assert [len(board.rows) for board in report.boards] == [4, 2]
    assert report.title == "k-ablation · other"
    assert {member.study for row in report.boards[1].rows for member in row.members} == {1}


def test_seeds_of_one_configuration_are_one_row_with_a_link_each(builder: Any) -> None:
    entry = entries_in(builder.study(2))[0]
    seeds = [entry.model_copy(update={"seed": seed, "trial": seed, "brierlm": 10.0 + seed}) for seed in (2, 0, 1)]
    links = Links("http://x", "1", None, {str(n): f"run{n}" for n in range(3)})
    trial = TrialRecord(number=0, state="complete", violations=("K <= 2",))
    origins = {seed: Origin(0, links, trial.model_copy(update={"number": seed.trial})) for seed in seeds}
    (board,) = boards_of(origins, {}, looks_of(origins), [])
    (row,) = board.rows
    assert [member.seed for member in row.members] == [0, 1, 2]
    assert [member.url for member in row.members] == [f"http://x/#/experiments/1/runs/run{n}" for n in range(3)]
    assert row.values["brierlm"] == 11.0
    assert row.values["seeds"] == "0, 1, 2"
    assert list(row.violations) == ["K <= 2"]


def test_rows_that_only_the_seed_tells_apart_say_it(builder: Any) -> None:
    entry = entries_in(builder.study(2))[0].model_copy(update={"configuration": ""})
    seeds = [entry.model_copy(update={"seed": seed, "brierlm": 10.0 - seed}) for seed in (0, 1)]
    origins = {seed: Origin(0, Links(), None) for seed in seeds}
    (board,) = boards_of(origins, {}, looks_of(origins), [])
    assert [row.label for row in board.rows] == [f"{entry.label}, seed 0", f"{entry.label}, seed 1"]


def test_colours_say_the_head_where_there_is_one_k(builder: Any) -> None:
    entry = entries_in(builder.study(5))[0]
    heads = ("energy", "flow", "diffusion")
    one_k = [entry.model_copy(update={"kind": "calm", "chunk_size": 4, "head": head}) for head in heads]
    looks = looks_of(one_k)
    assert len({look.colour for look in looks.values()}) == 3
    several = [row.model_copy(update={"chunk_size": size}) for row in one_k for size in (2, 4)]
    by_size = {look.colour for key, look in looks_of(several).items() if key[1] == 2}
    assert len(by_size) == 1
    assert len({(look.colour, look.marker) for look in looks_of(several).values()}) == 6


def test_estimate_against_outcome_is_shown(builder: Any) -> None:
    folder = builder.study(2)
    each = ComparedTime(count=2, estimated_s=100.0, measured_s=80.0, error=0.25)
    EstimateRecord(machine={}, total=each, kinds={"language_model": each}, stages={}).save(folder)
    found = collect(builder.store, [folder]).studies[0].estimates
    assert [(one.kind, one.estimated_s, one.measured_s) for one in found] == [
        ("total", 100.0, 80.0),
        ("language_model", 100.0, 80.0),
    ]


def test_a_report_is_made_beside_a_damaged_estimate(builder: Any) -> None:
    folder = builder.study(2)
    (folder / "estimate.json").write_text('{"total": "text"}')
    assert collect(builder.store, [folder]).studies[0].estimates == []


def test_studies_are_found_by_name_or_folder(builder: Any) -> None:
    first, second = builder.study(1), builder.study(1, name="other")
    assert study_folders(builder.store) == [first, second]
    assert study_folders(builder.store, ["other"]) == [second]
    assert study_folders(builder.store, [first.name]) == [first]
    with pytest.raises(ConfigurationError, match=r"no study 'othr' .* did you mean 'other'"):
        study_folders(builder.store, ["othr"])


def test_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="calm-bench run"):
        study_folders(Store(tmp_path))


def test_a_damaged_file_is_named(builder: Any) -> None:
    folder = builder.study(1)
    (folder / "trials.json").write_text("[{")
    with pytest.raises(ConfigurationError, match=r"trials\.json is damaged"):
        collect(builder.store, [folder])


def test_names_cannot_leave_the_store(builder: Any, tmp_path: Path) -> None:
    folder = builder.study(1)
    (tmp_path / "result.json").write_text('{"protocol": {"stolen": 1}}')
    trials = json.loads((folder / "trials.json").read_text())
    trials[0]["stages"] = {"evaluation": "../../..", "samples": "..", "../..": "x"}
    write_json(folder / "trials.json", trials)
    assert "stolen" not in json.dumps(collect(builder.store, [folder]).to_dict())
