"""A store of somebody else may name code in its stages and studies: whoever reads it runs none of that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from calm_bench.config import Experiment
from calm_bench.flops import training_flops
from calm_bench.overrides import apply_settings
from calm_bench.trusted_code import TRUSTED_HEADS, UntrustedCode, targets_in, trust_code
from pipelines.study.config import Study
from pipelines.study.stated_budget import stated_budget

FAMILY = """
from calm_bench.lm.patch import PatchModel
class Mine(PatchModel):
    likelihood = "exact"
"""
STUDY = """
name: own
corpus: {source: markov}
budget: equal-flops
model:
  kind: custom
  custom: {target: "planted_family:Mine"}
  chunk_size: 2
  hidden_size: 16
  intermediate_size: 32
  num_layers: 1
  num_attention_heads: 2
  num_key_value_heads: 2
  training: {num_steps: 3, batch_size: 2, sequence_length: 32, warmup_steps: 1}
evaluation: {context_length: 64, first_position: 16, max_windows: 6, num_samples: 2}
samples: {num_prompts: 0}
tracking: {enabled: false}
execution: {backend: local, store: store}
"""
READ = """
import sys
from typer.testing import CliRunner
from pipelines.app.cli import app
for line in sys.argv[1:]:
    found = CliRunner().invoke(app, line.split())
    assert found.exit_code == 0, (line, found.output, found.exception)
"""
COMMANDS = (
    "store ls --store store",
    "leaderboard --store store",
    "report --store store",
    "watch own --store store --once",
    "mlflow sync --store store",
    "plan smoke --store store",
)


def in_folder(folder: Path, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    environment.pop(TRUSTED_HEADS, None)
    subprocess.run([sys.executable, "-c", *arguments], cwd=folder, env=environment, check=True, timeout=300)


@pytest.mark.extended
def test_reading_a_store_imports_nothing_that_it_names(tmp_path: Path) -> None:
    module, sprung = tmp_path / "planted_family.py", tmp_path / "sprung"
    module.write_text(FAMILY)
    (tmp_path / "own.yaml").write_text(STUDY)
    in_folder(tmp_path, READ, "run own.yaml --local --no-calibration --quiet")
    module.write_text(f"open({str(sprung)!r}, 'w').close()\n{FAMILY}")
    in_folder(tmp_path, READ, *COMMANDS)
    # Nor where rows are made anew from the stages.
    for board in (tmp_path / "store" / "studies").glob("*/leaderboard.*"):
        board.unlink()
    in_folder(tmp_path, READ, "store ls --store store", "watch own --store store --once")
    assert not sprung.exists()
    # The trap works: who names the study has it imported.
    in_folder(tmp_path, READ, "plan own.yaml")
    assert sprung.exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"model.kind": "custom", "model.custom": {"target": "no_such_module:Family"}},
        {"model.head": {"kind": "custom", "target": "no_such_module:Head"}},
    ],
)
def test_prices_of_what_nobody_named_are_refused_before_it_is_imported(settings: dict[str, object]) -> None:
    experiment = apply_settings(Experiment(), settings)
    with pytest.raises(UntrustedCode, match=f"if you trust it, set {TRUSTED_HEADS}=no_such_module:"):
        training_flops(experiment.model, experiment.autoencoder, 256, 64)
    study = Study(name="own", budget="equal-tokens", **dict(experiment))
    with pytest.raises(UntrustedCode):
        stated_budget(study)


def test_named_targets_are_found_wherever_a_study_names_them() -> None:
    settings = {
        "model": {"head": {"kind": "custom", "target": "a:A"}, "custom": {"target": None}},
        "search": {
            "fixed": {"model.custom.target": "b:B"},
            "parameters": [
                {"name": "model.head.target", "values": ["c:C", "d:D"]},
                {"name": "look", "values": None, "choices": {"one": {"model.head": {"target": "e:E"}}}},
                {"name": "seed", "values": ["f:F"]},
            ],
        },
        "corpus": {"source": "g:G"},
    }
    assert set(targets_in(settings)) == {"a:A", "b:B", "c:C", "d:D", "e:E"}


def test_a_trusted_target_is_imported() -> None:
    trust_code("no_such_trusted_module:Head")
    experiment = apply_settings(
        Experiment(), {"model.head": {"kind": "custom", "target": "no_such_trusted_module:Head"}}
    )
    with pytest.raises(ValueError, match="cannot be imported"):
        training_flops(experiment.model, experiment.autoencoder, 256, 64)
