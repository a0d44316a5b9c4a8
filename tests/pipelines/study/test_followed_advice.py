"""What refusals of stages advise is taken from the message, set, and refuses nothing then."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calm_bench.config import Experiment, LanguageModel
from calm_bench.lm.folder import build_language_model
from calm_bench.overrides import ConfigurationError, apply_settings, parse_assignment
from pipelines.report import estimate_table
from pipelines.results import sentences
from pipelines.store.study_names import choose_studies
from pipelines.study.catalogue import resolve_study
from pipelines.study.graph import stages_for
from pipelines.study.kinds.autoencoder import AUTOENCODER
from pipelines.study.kinds.language_model import language_model_memory_advice
from pipelines.study.stage_kind import STAGE_KINDS, fewer_at_once

BASE = Experiment()
SHARDS = {f"{section}.training.shuffle_shards": 4 for section in ("autoencoder", "model")}


def reason(kind: str, experiment: Experiment, tokens: dict[str, int]) -> str | None:
    """Why a stage of that kind is refused where the splits have so many tokens."""
    return STAGE_KINDS.get(kind).refusal(stages_for(experiment)[kind], {"tokens": {"tokens": tokens}})


@pytest.mark.parametrize(
    ("kind", "settings", "tokens", "advice", "value"),
    [
        ("language_model", {}, {"train": 100, "validation": 900}, r"lower (model\S+), or", 64),
        ("autoencoder", {}, {"train": 900, "validation": 100}, r"lower (autoencoder\S+), or", 64),
        ("language_model", SHARDS | {"tokens.shard_tokens": 255}, {}, r"raise (\S+)$", 4096),
        ("autoencoder", SHARDS | {"tokens.shard_tokens": 255}, {}, r"raise (\S+)$", 4096),
        ("evaluation", {}, {"test": 700}, r"lower (evaluation\S+) or", 128),
        ("evaluation", {"evaluation.max_windows": 2}, {"test": 9000}, r"^(\S+) is 2, .*: raise it$", 3),
    ],
)
def test_a_text_too_short_is_enough_after_what_is_advised(
    kind: str, settings: dict[str, Any], tokens: dict[str, int], advice: str, value: int
) -> None:
    experiment = apply_settings(BASE, settings)
    told = reason(kind, experiment, tokens)
    found = re.search(advice, str(told))
    assert found is not None, told
    changed = apply_settings(experiment, {found[1]: value})
    # Positions that are scored lie inside of the shorter window.
    assert reason(kind, changed, tokens) is None


@pytest.mark.parametrize(
    ("kind", "tokens"), [("language_model", {"train": 900, "validation": 100}), ("evaluation", {"test": 700})]
)
def test_more_of_the_text_is_held_out_by_what_is_advised(kind: str, tokens: dict[str, int]) -> None:
    told = reason(kind, BASE, tokens)
    (path,) = re.findall(r"raise (corpus\.\w+)$", str(told))
    assert apply_settings(BASE, {path: 0.3}).corpus != BASE.corpus


@pytest.mark.parametrize("strategy", [None, "ddp"])
def test_what_makes_a_stage_smaller_can_be_set(strategy: str | None) -> None:
    graph = stages_for(BASE)
    told = [
        language_model_memory_advice(graph["language_model"], strategy),
        AUTOENCODER.memory_advice(graph["autoencoder"], strategy),
        fewer_at_once(graph["tokens"], strategy),
    ]
    for message in told:
        given = re.findall(r"execution\.\w+=\w+", message)
        named = re.findall(r"\((execution\.\w+)\)", message)
        assert named
        execution = resolve_study("smoke", [*given, *(f"{path}=2" for path in named)]).execution
        for setting in given:
            path, value = parse_assignment(setting)
            assert getattr(execution, path.partition(".")[2]) == value


def test_a_setting_that_a_folder_decides_is_left_out(tmp_path: Path) -> None:
    config = LanguageModel(kind="token", hidden_size=16, intermediate_size=16, num_layers=1, num_attention_heads=2)
    build_language_model(config, 257, None, 0).save(tmp_path / "model")
    given = ["search.parameters=[]", "model.kind=token", f"model.pretrained.folder={tmp_path / 'model'}"]
    with pytest.raises(ConfigurationError, match=r"^(model\.hidden_size)=32 .*; leave the setting out$"):
        resolve_study("smoke", [*given, "model.hidden_size=32"])
    assert resolve_study("smoke", given).model.hidden_size == 16


def test_a_name_of_a_study_file() -> None:
    look: Callable[[str], Any] = resolve_study
    with pytest.raises(ConfigurationError, match=r"did you mean '([\w-]+)'") as refused:
        look("smok")
    (near,) = re.findall(r"did you mean '([\w-]+)'", str(refused.value))
    assert look(near).name == near


def test_a_stage_of_every_study_has_a_section() -> None:
    advice = r"extra_stages, kind (\w+): it is part of every study or has a section of its own"
    with pytest.raises(ConfigurationError, match=advice) as refused:
        resolve_study("smoke", ["extra_stages=[{kind: evaluation}]"])
    (section,) = re.findall(advice, str(refused.value))
    assert resolve_study("smoke", [f"{section}.max_windows=8"]).evaluation.max_windows == 8


def test_a_study_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.yaml").write_text("seed: 7")
    with pytest.raises(ConfigurationError, match=r"^folder is a folder: name a study file \(YAML\) in it$"):
        resolve_study("folder")
    assert resolve_study("folder/mine.yaml").seed == 7
    with pytest.raises(ConfigurationError, match=r"\(a path of a YAML file works too\)$"):
        resolve_study("mine")
    assert resolve_study(str(tmp_path / "folder" / "mine.yaml")).name == "mine"
    (tmp_path / "my study!.yaml").write_text("seed: 7")
    with pytest.raises(ConfigurationError, match=r"give it a name in the file \(name: ") as refused:
        resolve_study("my study!.yaml")
    (line, setting) = re.findall(r"in the file \((name: \S+)\) or beside it \((name=\S+)\)$", str(refused.value))[0]
    beside = resolve_study("my study!.yaml", [setting])
    (tmp_path / "my study!.yaml").write_text(f"seed: 7\n{line}")
    assert resolve_study("my study!.yaml") == beside


def test_a_beginning_of_several_names_is_typed_further() -> None:
    folders = [Path(f"smoke-{digits:016x}") for digits in (0x1111 << 48, 0x1112 << 48)]
    with pytest.raises(
        ConfigurationError, match=r"is the beginning of several studies: (.+); type more of one$"
    ) as refused:
        choose_studies(["smoke-111"], folders, "runs")
    for name in re.findall(r"smoke-\w{16}", str(refused.value)):
        assert choose_studies([name[:10]], folders, "runs") == [Path(name)]


def test_settings_that_make_a_training_fit() -> None:
    """What a plan says of a training that is larger than the GPU."""
    named = re.findall(r"execution\.\w+=\w+", " ".join(inspect.getsource(estimate_table).split()))
    assert len(named) == 4
    execution = resolve_study("smoke", [*named, "execution.gpus_per_stage=1"]).execution
    assert (execution.activation_checkpointing, execution.strategy, execution.workers) == (True, "fsdp", 2)


def test_the_study_that_a_headline_asks_for() -> None:
    (name,) = re.findall(r"^calm-bench run (\S+)$", str(sentences.command([], [])))
    assert resolve_study(name).name == name
