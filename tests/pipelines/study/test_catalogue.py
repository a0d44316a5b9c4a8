from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from calm_bench.overrides import ConfigurationError
from pipelines.store.study_record import resolved_yaml
from pipelines.study.catalogue import resolve_study, shipped_studies
from pipelines.study.space import grid_points, settings_at


def written(folder: Path, content: dict[str, object], name: str = "mine") -> str:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_every_shipped_study_resolves_and_describes_itself() -> None:
    studies = shipped_studies()
    assert {"k-ablation", "smoke", "tune-head", "paper-k-ablation"} <= {study.name for study in studies}
    for study in studies:
        resolved = resolve_study(study.name)
        assert resolved.name == study.name
        assert study.description
        if resolved.search.sampler == "grid":
            for point in grid_points(resolved.search):
                assert settings_at(resolved.search, point)


def test_a_nested_key_keeps_the_other_defaults(tmp_path: Path) -> None:
    study = resolve_study(written(tmp_path, {"model": {"training": {"learning_rate": 1e-3}}}))
    assert study.name == "mine"
    assert (study.model.training.learning_rate, study.model.training.num_steps) == (1e-3, 1000)


def test_command_line_wins_over_file_and_file_over_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from calm_bench import presets

    monkeypatch.setitem(presets.PRESETS, "a", {"model": {"hidden_size": 128, "num_layers": 5, "intermediate_size": 9}})
    monkeypatch.setitem(presets.PRESETS, "b", {"model": {"hidden_size": 160}})
    path = written(tmp_path, {"preset": "a", "model": {"num_layers": 6, "intermediate_size": 10}})
    model = resolve_study(path, ["model.intermediate_size=11"]).model
    assert (model.hidden_size, model.num_layers, model.intermediate_size) == (128, 6, 11)
    model = resolve_study(path, ["preset=b"]).model
    assert (model.hidden_size, model.num_layers, model.intermediate_size) == (160, 6, 10)


def test_every_preset_is_a_valid_experiment() -> None:
    from calm_bench.presets import PRESETS

    for name in PRESETS:
        assert resolve_study("k-ablation", [f"preset={name}"])


@pytest.mark.parametrize(
    ("content", "overrides", "message"),
    [
        ({"modle": {}}, [], r"mine\.yaml: modle: unknown key; did you mean 'model'\?"),
        ({"preset": "tyni"}, [], r"no preset 'tyni'"),
        ({}, ["model.head.alpah=1"], r"unknown key 'model\.head\.alpah'; did you mean 'model\.head\.alpha'\?"),
        ({}, ["seed=1", "seed=2"], "seed is set twice"),
        ({}, ["seed"], "not of the form key=value"),
        ({"model": {"chunk_size": 3}}, [], r"is not a multiple of model\.chunk_size 3"),
        (
            {"search": {"parameters": [{"name": "model.head.widht", "values": [1]}]}},
            [],
            r"search parameter 'model\.head\.widht': .*'model\.head\.width'",
        ),
        (
            {"search": {"parameters": [{"name": "K", "choices": {"K=2": {"model.chunksize": 2}}}]}},
            [],
            r"search parameter 'K': .*'model\.chunk_size'",
        ),
        ({"search": {"sampler": "tpe"}}, [], "needs num_trials"),
    ],
)
def test_mistakes_are_refused_with_their_path(
    tmp_path: Path, content: dict[str, object], overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        resolve_study(written(tmp_path, content), overrides)


def test_unknown_study_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean 'k-ablation'\?"):
        resolve_study("k-abaltion")
    with pytest.raises(ConfigurationError, match=r"no study file absent/study\.yaml"):
        resolve_study("absent/study.yaml")


def test_resolved_configuration_reads_back_equal(tmp_path: Path) -> None:
    study = resolve_study("k-ablation", ["seed=7", "model.training.num_flops=1e12"])
    path = tmp_path / "study.yaml"
    path.write_text(resolved_yaml(study))
    assert resolve_study(str(path)) == study


def test_search_can_be_changed_from_the_command_line(tmp_path: Path) -> None:
    parameter = {"name": "seed", "values": [0, 1]}
    path = written(tmp_path, {"search": {"parameters": [parameter]}})
    assert resolve_study(path, ["search.parameters[0].values=[5]"]).search.parameters[0].values == (5,)


def test_what_sections_share_stands_under_a_key_that_sets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "shared.yaml"
    path.write_text(
        "x-training: &training {num_steps: 7, warmup_steps: 2}\n"
        "autoencoder: {training: *training}\n"
        "model: {training: {<<: *training, batch_size: 3}}\n"
    )
    study = resolve_study(str(path))
    assert study.autoencoder.training.num_steps == study.model.training.num_steps == 7
    assert study.model.training.batch_size == 3
    path.write_text("training: &training {num_steps: 7}\n")
    with pytest.raises(ConfigurationError, match="training: unknown key"):
        resolve_study(str(path))


@pytest.mark.parametrize("stem", ["(1)", "1e5 copy é", "实验 2", "true!", "null ", "实验", "my study (2)"])
def test_a_name_that_is_advised_is_one(tmp_path: Path, stem: str) -> None:
    """In the file and beside it, where YAML would read some names as numbers."""
    path = written(tmp_path, {"model": {"kind": "token"}}, stem)
    with pytest.raises(ConfigurationError, match="a study is called after its file") as refused:
        resolve_study(path)
    said = re.search(r"in the file \((name: \S+)\) or beside it \((name=\S+)\)$", str(refused.value))
    assert said is not None, refused.value
    beside = resolve_study(path, [said[2]]).name
    Path(path).write_text(f"{Path(path).read_text()}{said[1]}\n")
    assert resolve_study(path).name == beside
