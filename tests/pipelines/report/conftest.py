"""Stores as finished studies leave them, without the hours of training."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from calm_bench.atomic import write_json
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard
from pipelines.store.store import Store
from pipelines.store.study_record import resolved_yaml
from pipelines.study.catalogue import resolve_study

if TYPE_CHECKING:
    pass

PROTOCOL = {
    "name": "matched",
    "split": "test",
    "context_length": 256,
    "first_position": 32,
    "position_stride": 8,
    "last_position": None,
    "ngram_lengths": [1, 2, 3, 4],
    "num_samples": 8,
    "max_windows": 500,
    "decode_mode": "sample T=1",
    "seed": 0,
}
PROTOCOL_HASH = "62a375c5c2d9d77c"
PROMPT = "asyncio exceptions.\n\nThe Future or Task"
CHUNK_SIZES = (None, 1, 2, 4, 8)
"""None is the token model."""


class StoreBuilder:
    """Writes a study of ``count`` finished trials, token models and K = 1 to 8 in turn, into a store."""

    def __init__(self, root: Path, seed: int = 0) -> None:
        self.store = Store(root)
        self._random = random.Random(seed)

    def study(
        self,
        count: int = 5,
        *,
        name: str = "k-ablation",
        labels: Sequence[str] = (),
        text: str = " was cancelled.",
        heads: Sequence[str] = ("energy",),
        log_lines: int = 30,
        ended: Sequence[dict[str, Any]] = (),
        mlflow: bool = True,
        searches: bool = False,
        protocol_hash: str = PROTOCOL_HASH,
    ) -> Path:
        """The study's folder.

        Args:
            labels: of the trials; by default what a study would call them.
            text: what models write.
            ended: trials without a row, as ``trials.json`` has them but for their numbers.
            searches: a search by TPE over learning rate, K and head, instead of the grid over K.
        """
        folder = self.store.root / "studies" / f"{name}-{'0123456789abcdef'}"
        trials, entries = [], []
        for number in range(count):
            size = CHUNK_SIZES[number % len(CHUNK_SIZES)]
            head = heads[number % len(heads)]
            label = labels[number] if number < len(labels) else ("token" if size is None else f"K={size}")
            if count > len(CHUNK_SIZES) and number >= len(labels):
                label += f", learning_rate={1e-3 * 1.01**number:.3g}"
            entry = self._entry(name, number, label, size, head, protocol_hash)
            entries.append(entry)
            trials.append(self._trial(entry, size, head, log_lines, text, searches))
        for state in ended:
            trials.append(
                {"number": len(trials), "settings": {}, "values": [], "violations": [], "stages": {}, **state}
            )
        folder.mkdir(parents=True)
        (folder / "study.yaml").write_text(self._configuration(name, searches))
        write_json(folder / "trials.json", trials)
        (folder / "leaderboard.json").write_text(Leaderboard(entries).to_json())
        if mlflow:
            record = {"address": "http://tracking.example:8080", "experiment_id": "7", "parent_run_id": "f" * 32}
            write_json(folder / "mlflow.json", record | {"runs": {str(n): f"{n:032x}" for n in range(len(trials))}})
        return folder

    def _entry(self, study: str, number: int, label: str, size: int | None, head: str, protocol_hash: str) -> Entry:
        is_token = size is None
        score = (18.0 if size is None else 14.0 / math.sqrt(size)) + self._random.gauss(0, 0.8)
        flops = 3e12 * (1 + 0.4 * self._random.random())
        autoencoder_flops = 0.0 if size is None else 1e12 * (1 + size / 8)
        parts = (0.45, 0.2, 0.1, 0.05)
        scale = score / 18
        return Entry(
            study=study,
            trial=number,
            label=label,
            kind="token" if is_token else "calm",
            chunk_size=size or 1,
            head=None if is_token else head,
            seed=0,
            configuration=f"{number:016x}",
            parameters=400_000 + 1000 * number,
            autoencoder_parameters=0 if is_token else 290_000,
            autoencoder_accuracy=None if is_token else 0.9993,
            brier=tuple(part * scale for part in parts),
            brier_se=(0.008, 0.007, 0.006, 0.004),
            brierlm=score,
            brierlm_se=0.5 + 0.3 * self._random.random(),
            num_positions=14_000,
            num_documents=71,
            num_samples=8,
            protocol_hash=protocol_hash,
            training_flops=flops,
            autoencoder_training_flops=autoencoder_flops,
            total_training_flops=flops + autoencoder_flops,
            inference_flops_per_token=1e6 / math.sqrt(size or 1),
            decode_mode="sample T=1",
            wall_time_s=100.0 + number,
            total_wall_time_s=160.0 + number,
            tokens=1e6,
            tokens_per_second=7000.0,
            generated_tokens_per_second=150.0 * (size or 1),
            generation="sample T=1, 2 texts at once, cpu: x86_64",
            corpus_digest="ab" * 32,
            model_identity=f"model{number:011d}",
            model_folder="runs/stages/language_model/x/model",
        )

    def _trial(
        self, entry: Entry, size: int | None, head: str, log_lines: int, text: str, searches: bool
    ) -> dict[str, Any]:
        identities = {"corpus": "c" * 16, "tokens": "d" * 16, "language_model": entry.model_identity}
        identities |= {"evaluation": f"score{entry.trial:011d}", "samples": f"texts{entry.trial:011d}"}
        if size is not None:
            identities["autoencoder"] = f"coder{size:011d}"
            found, log = self._autoencoder(size), self._log(20, "energy", True)
            self._stage("autoencoder", identities["autoencoder"], found, log, f"autoencoder K={size}")
        self._stage("corpus", identities["corpus"], {"source": "stdlib", "digest": "ab" * 32, "python": "3.11.7"})
        self._stage("tokens", identities["tokens"], {"tokenizer": "bytes"})
        log = self._log(log_lines, "token" if size is None else head)
        self._stage("language_model", entry.model_identity, {"training_flops": entry.training_flops}, log)
        self._stage("evaluation", identities["evaluation"], {"brierlm": entry.brierlm, "protocol": PROTOCOL})
        texts = [
            {"temperature": t, "prompt": PROMPT, "text": text, "num_tokens": 16, "ended": False, "head_evaluations": 8}
            for t in (1.0, 0.5)
        ]
        self._stage("samples", identities["samples"], {"texts": texts})
        settings: dict[str, Any] = {"model.kind": "token"} if size is None else {"model.chunk_size": size}
        if searches:
            rate = 1e-3 * 10 ** self._random.uniform(-1, 1)
            settings = {"model.training.learning_rate": rate, "model.hidden_size": 32 * self._random.choice([1, 2, 4])}
        return {
            "number": entry.trial,
            "label": entry.label,
            "settings": settings,
            "state": "complete",
            "error": None,
            "values": [entry.brierlm],
            "violations": [],
            "stages": identities,
        }

    def _stage(
        self,
        kind: str,
        identity: str,
        result: dict[str, Any],
        log: list[dict[str, Any]] | None = None,
        label: str = "",
    ) -> None:
        folder = self.store.root / "stages" / kind / identity
        if folder.exists():
            return
        folder.mkdir(parents=True)
        provenance = {
            "git": {"commit": "0123456789" * 4, "modified": False},
            "versions": {"calm-bench": "0.1.0", "python": "3.11.7", "torch": "2.13.0"},
            "device": "cpu: x86_64",
            "host": "secret-host",
            "platform": "Linux",
            "wall_time_s": 50.0,
            "flops": result.get("training_flops"),
            "attempts": [{"started": 1_795_336_756.0}],
        }
        description = {"kind": kind, "revision": 1, "identity": identity, "label": label or kind, "config": {}}
        for name, value in (("result", result), ("provenance", provenance), ("config", description)):
            (folder / f"{name}.json").write_text(json.dumps(value))
        if log is not None:
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))

    def _log(self, lines: int, head: str, of_autoencoder: bool = False) -> list[dict[str, Any]]:
        found = []
        for step in range(1, lines + 1):
            share = step / lines
            loss = 2 + 3 * math.exp(-4 * share) + self._random.gauss(0, 0.03)
            terms = {"loss": loss, "learning_rate": 1e-3, "grad_norm": 1.0, "tokens_per_second": 7000.0}
            if of_autoencoder:
                terms |= {"reconstruction": loss / 4, "kl": 80.0}
            elif head == "energy":
                terms |= {"fidelity": 2 * loss, "diversity": loss}
            row = {"step": 20 * step, "total_steps": 20 * lines, "tokens": 1000 * step, "flops": 3.5e12 * share}
            found.append({**row, "time": float(step), "split": "train", "metrics": terms})
        found.append({**found[-1], "split": "validation", "metrics": {"loss": found[-1]["metrics"]["loss"]}})
        return found

    def _autoencoder(self, size: int) -> dict[str, Any]:
        latent = 16 + 8 * size

        def share(value: float) -> dict[str, Any]:
            return {"value": value, "standard_error": 0.002, "num_tokens": 16384}

        return {
            "chunk_size": size,
            "parameters": 290_000,
            "training_flops": 1e12,
            "accuracy": 0.9993,
            "accuracy_se": 0.0001,
            "probes": {
                "chunk_size": size,
                "latent_size": latent,
                "posterior_std": 0.15,
                "posterior": share(0.999),
                "collapsed": {
                    "value": 1,
                    "standard_error": 0.0,
                    "num_chunks": 4096,
                    "threshold": 0.01,
                    "kl": [2.5 - 0.05 * n for n in range(latent - 1)] + [0.001],
                },
                "noise": [{"level": level, "accuracy": share(1 - 0.2 * level)} for level in (0.0, 0.5, 1.0, 2.0)],
                "bits": [{"level": level, "accuracy": share(1 - 0.3 / level**2)} for level in (1, 2, 4, 8)],
            },
        }

    def _configuration(self, name: str, searches: bool) -> str:
        text = resolved_yaml(resolve_study("k-ablation"))
        settings = yaml.safe_load(text)
        settings["name"] = name
        if searches:
            parameters = [
                {"name": "model.training.learning_rate", "low": 1e-4, "high": 1e-2, "log": True},
                {"name": "model.hidden_size", "values": [32, 64, 128]},
            ]
            settings["search"] |= {"sampler": "tpe", "num_trials": 40, "parameters": parameters}
        return text if (name, searches) == ("k-ablation", False) else yaml.safe_dump(settings, sort_keys=False)


@pytest.fixture
def builder(tmp_path: Path) -> StoreBuilder:
    return StoreBuilder(tmp_path / "runs")


@pytest.fixture(scope="session")
def builder_at() -> Callable[[Path], StoreBuilder]:
    """Makes a builder for a folder that outlives a single test."""
    return StoreBuilder


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots are kept: ``$CALM_BENCH_ARTIFACTS``, or a temporary folder."""
    given = os.environ.get("CALM_BENCH_ARTIFACTS")
    folder = Path(given) if given else tmp_path_factory.mktemp("artifacts")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
