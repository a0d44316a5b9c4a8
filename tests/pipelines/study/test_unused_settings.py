"""Settings that change nothing in any row of a study are noted, wherever they are given."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.app.entrance.study import Study as StudyOfPython
from pipelines.study.catalogue import resolve_study, shipped_studies, unused_settings

TOKEN = "every row is a token model, which has no such part"
SEARCH = "name: model, choices: {token: {model.kind: token}, K=4: {model.chunk_size: 4}}"


def notes(name: str | Path, *overrides: str) -> list[str]:
    return unused_settings(str(name), overrides, resolve_study(str(name), overrides))


def written(folder: Path, text: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("name", [study.name for study in shipped_studies()])
def test_a_shipped_study_sets_nothing_in_vain_nor_with_a_choice_less(name: str) -> None:
    assert notes(name) == []
    labels = resolve_study(name).search.parameters[0]
    assert (
        notes(name, f"search.parameters.0.include=[{next(iter(labels.choices))}]" if labels.choices else "seed=9") == []
    )


def test_a_setting_of_the_command_line_that_no_row_has_is_noted() -> None:
    narrowed = "search.parameters.0.include=[token]"
    (note,) = notes("smoke", narrowed, "autoencoder.training.num_steps=20", "model.head.num_blocks=4")
    assert note == f"autoencoder.training.num_steps and model.head.num_blocks change nothing here: {TOKEN}"
    assert not notes("smoke", "autoencoder.training.num_steps=20")


def test_a_setting_of_a_file_that_no_row_has_is_noted(tmp_path: Path) -> None:
    file = written(tmp_path, "model: {kind: token, head: {num_blocks: 4}}")
    assert notes(file) == [f"model.head.num_blocks changes nothing here: {TOKEN}"]
    with pytest.warns(UserWarning, match=r"model\.head\.num_blocks changes nothing"):
        StudyOfPython.from_yaml(file)


@pytest.mark.parametrize(
    "text",
    [
        "model: {kind: token, head: {kind: energy, num_blocks: 2}, chunk_size: 4}\nautoencoder: {latent_size: 32}",
        f"model: {{head: {{num_blocks: 4}}}}\nsearch: {{parameters: [{{{SEARCH}}}]}}",
        f"model: {{head: {{num_blocks: 4}}}}\nsearch: {{parameters: [{{{SEARCH}, include: [token]}}]}}",
        "search: {rungs: 4, concurrent_trials: 4}",
    ],
)
def test_defaults_written_out_and_settings_of_some_rows_are_not_noted(tmp_path: Path, text: str) -> None:
    assert notes(written(tmp_path, text)) == []


def test_a_search_over_what_no_row_has_is_noted(tmp_path: Path) -> None:
    searched = "{name: model.head.num_blocks, values: [1, 2]}"
    file = written(
        tmp_path, f"model: {{kind: token}}\nsearch: {{parameters: [{searched}], fixed: {{model.chunk_size: 2}}}}"
    )
    fixed, over = notes(file)
    assert fixed == f"search.fixed: model.chunk_size changes nothing here: {TOKEN}"
    assert over.startswith(
        "the search over model.head.num_blocks changes nothing here: every such row is a token model"
    )
    (choice,) = notes("smoke", "model.kind=token")
    assert choice.startswith("choice K=2: model.chunk_size changes nothing here")


def test_a_choice_and_a_parameter_of_some_rows_are_judged_by_these(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "search:\n  each: [model]\n  parameters:\n"
        "    - {name: model, choices: {token: {model.kind: token, model.head: {num_blocks: 3}}, K=4: {}}}\n"
        "    - {name: model.head.width, values: [64, 96], when: {model: [token]}}\n"
        "    - {name: model.head.noise_size, values: [8, 16], when: {model: [K=4]}}\n",
    )
    assert [note.partition(" change")[0] for note in notes(file)] == [
        "choice token: model.head.num_blocks",
        "the search over model.head.width",
    ]


@pytest.mark.parametrize(
    ("given", "note"),
    [
        (["search.rungs=3"], "search.rungs changes nothing here: search.pruner is none"),
        (["search.concurrent_trials=3"], "search.concurrent_trials changes nothing here: search.sampler is grid"),
        (["benchmarks.limit=5"], "benchmarks.limit changes nothing here: benchmarks.tasks is empty"),
        (["execution.strategy=fsdp"], "execution.strategy changes nothing here: execution.workers is 1"),
        (["samples.num_prompts=0", "samples.num_tokens=9"], "samples.num_tokens changes nothing here: "),
        (["evaluation.protocol=paper", "evaluation.num_samples=4"], "evaluation.num_samples changes nothing here: "),
    ],
)
def test_what_a_switch_turns_off_is_noted(given: list[str], note: str) -> None:
    assert [found[: len(note)] for found in notes("smoke", *given)] == [note]


def test_what_a_switch_turns_on_is_not_noted() -> None:
    assert (
        notes("smoke", "search.pruner=median", "search.rungs=3", "execution.workers=2", "execution.strategy=fsdp") == []
    )
