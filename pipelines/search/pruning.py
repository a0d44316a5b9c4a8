"""Stop language models that are worse than others of the study at the same training FLOPs.

Rungs are fixed FLOPs: 1/2, 1/4, 1/8, ... of the base experiment's training. A trial's loss at a rung is its validation
loss, interpolated between the validations before and after (``training.validate_every`` says how finely). A trial is
compared with those of lower number that reached the same rung, and with no others: so which trials are pruned is a
property of the study, and does not depend on how many ran at once, on what, or how often they were interrupted. The
price is that a fast trial may have run on for a while when a slower one before it reaches the rung.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from calm_bench.config import Experiment
from calm_bench.fingerprint import identity
from pipelines.execution.events import Event, StageCached, StageFinished, StageProgress
from pipelines.store.metrics_log import read_lines
from pipelines.study.search_settings import Search
from pipelines.study.stage import Stage, StageGraph

LANGUAGE_MODEL = "language_model"

_LOSS_SETTINGS = {
    "energy": ("alpha",),
    "drifting": ("temperatures",),
    "diffusion": ("objective",),
    "flow": (),
    "shortcut": ("num_samples", "num_shortcuts", "num_halvings"),
    "mean_flow": ("num_samples", "num_jumps", "num_steps"),
    "custom": ("target", "options", "revision"),
}
"""Settings by kind of head without which two losses do not mean the same; all others are only about its network."""


def _median_rule(loss: float, peers: list[float]) -> str | None:
    """Pruned is what is worse than the median of at least four."""
    if len(peers) >= 4 and loss > median(peers):
        return f"above the median {median(peers):.4g} of {len(peers)} trials"
    return None


def _halving_rule(loss: float, peers: list[float]) -> str | None:
    """Pruned is what is not in the better half; the median of two or three trials belongs to it."""
    better = sum(peer < loss for peer in peers)
    if better >= (len(peers) + 2) // 2:
        return f"{better} of {len(peers)} trials are better"
    return None


RULES: Mapping[str, Callable[[float, list[float]], str | None]] = {"median": _median_rule, "halving": _halving_rule}
"""By ``search.pruner``: from a trial's loss and its peers' to the reason for pruning it, if there is one."""


@dataclass
class _Contestant:
    stage: Stage | None
    group: str
    ended: bool = False
    """No more validations will come."""
    losses: list[float | None] = field(default_factory=list)
    """By rung, as far as the trial has entered; None where it has no loss."""
    judged: int = 0
    """Number of rungs it has been judged at."""
    pruned_at: int | None = None
    reason: str = ""


class Pruner:
    """Judges the trials of one study. A listener: it learns of validations from the study's events.

    Args:
        total_flops: training FLOPs of the base experiment's language model.
    """

    def __init__(self, search: Search, total_flops: float) -> None:
        self._rule = RULES[search.pruner]
        self.rungs = tuple(total_flops / 2**power for power in range(search.rungs, 0, -1))
        self._contestants: dict[int, _Contestant] = {}
        self._validations: dict[Stage, dict[float, float]] = {}
        """Loss by FLOPs."""
        self._trained: set[Stage] = set()

    def add(self, number: int, experiment: Experiment, graph: StageGraph) -> None:
        """Let a trial take part. Trials must be added in the order of their numbers."""
        self._contestants[number] = _Contestant(graph.get(LANGUAGE_MODEL), _group(experiment, graph))

    def add_ended(
        self, number: int, experiment: Experiment, graph: StageGraph, losses: Mapping[int, float], pruned: bool
    ) -> None:
        """Let a trial take part that an earlier driver brought to its end, with what that one recorded by rung."""
        last = max(losses, default=-1)
        contestant = _Contestant(None, _group(experiment, graph), ended=True)
        contestant.losses = [losses.get(rung) for rung in range(last + 1)]
        contestant.judged = len(self.rungs)
        contestant.pruned_at = last if pruned else None
        self._contestants[number] = contestant

    def end(self, number: int) -> None:
        """A trial failed: it will reach no further rung."""
        if number in self._contestants:
            self._contestants[number].ended = True

    def handle(self, event: Event) -> None:
        match event:
            case StageProgress(stage=stage, split="validation") if stage.kind == LANGUAGE_MODEL:
                if "loss" in event.metrics:
                    self._validations.setdefault(stage, {})[event.flops] = event.metrics["loss"]
            case StageCached() | StageFinished() if event.stage.kind == LANGUAGE_MODEL:
                # Its last lines may not have been told.
                self._validations[event.stage] = _read_validations(event.folder)
                self._trained.add(event.stage)

    def judge(self) -> None:
        """Judge every trial at every rung for which all that it is compared with is known."""
        for number in self._contestants:
            while self._step(number):
                continue

    def verdict(self, number: int) -> str | None:
        """Why a trial is pruned; None while it is not."""
        found = self._contestants.get(number)
        return found.reason if found is not None and found.pruned_at is not None else None

    def is_judged(self, number: int) -> bool:
        """Whether nothing that is still to come can prune a trial."""
        found = self._contestants.get(number)
        return found is None or found.judged == len(self.rungs)

    def losses(self, number: int) -> dict[int, float]:
        """A trial's loss by rung, up to the one at which it was pruned."""
        found = self._contestants.get(number)
        values = [] if found is None else found.losses[: found.judged]
        return {rung: loss for rung, loss in enumerate(values) if loss is not None}

    def _step(self, number: int) -> bool:
        """Judge a trial at its next rung; returns whether that was possible."""
        trial = self._contestants[number]
        rung = trial.judged
        if rung == len(self.rungs) or trial.pruned_at is not None:
            return False
        if len(trial.losses) == rung:
            known, loss = self._loss_at(trial, self.rungs[rung])
            if not known:
                return False
            trial.losses.append(loss)
        peers = self._peers(number, rung)
        if peers is None:
            return False
        loss = trial.losses[rung]
        reason = None if loss is None else self._rule(loss, peers)
        trial.judged += 1
        if reason is not None:
            trial.pruned_at = rung
            trial.reason = f"validation loss {loss:.4g} at {self.rungs[rung]:.3g} training FLOPs: {reason}"
        return True

    def _peers(self, number: int, rung: int) -> list[float] | None:
        """The losses that a trial is compared with at ``rung``; None while one of them is not known yet."""
        group = self._contestants[number].group
        peers = []
        for other, trial in self._contestants.items():
            if other >= number or trial.group != group:
                continue
            if trial.pruned_at is not None and trial.pruned_at < rung:
                continue
            if len(trial.losses) > rung:
                loss = trial.losses[rung]
                if loss is not None:
                    peers.append(loss)
            elif not trial.ended:
                return None
        return peers

    def _loss_at(self, trial: _Contestant, flops: float) -> tuple[bool, float | None]:
        """Whether it is known, and the validation loss at ``flops``, or None where the trial has none there."""
        points = sorted(self._validations.get(trial.stage, {}).items()) if trial.stage is not None else []
        after = next((point for point in points if point[0] >= flops), None)
        if after is None:
            return trial.ended or trial.stage is None or trial.stage in self._trained, None
        before = max((point for point in points if point[0] <= flops), default=None)
        if before is None:
            return True, None
        share = 0.0 if after[0] == before[0] else (flops - before[0]) / (after[0] - before[0])
        loss = before[1] + share * (after[1] - before[1])
        return True, math.inf if math.isnan(loss) else loss


def _group(experiment: Experiment, graph: StageGraph) -> str:
    """Equal for trials whose validation losses mean the same: the same text in equal latents, scored in one way."""
    model = experiment.model
    meaning: dict[str, Any] = {
        "tokens": graph["tokens"].identity if "tokens" in graph else "",
        "kind": model.kind,
        "length": model.training.sequence_length,
    }
    if model.needs_autoencoder:
        head = model.head.model_dump(mode="json")
        meaning |= {
            "autoencoder": experiment.autoencoder,
            "chunk_size": model.chunk_size,
            "head": {name: head[name] for name in ("kind", *_LOSS_SETTINGS[model.head.kind])},
        }
    return identity(meaning)


def _read_validations(folder: Path) -> dict[float, float]:
    """Validation loss by training FLOPs, of the training in ``folder``."""
    lines = read_lines(LANGUAGE_MODEL, folder)
    return {
        line.flops: float(line.metrics["loss"])
        for line in lines
        if line.split == "validation" and "loss" in line.metrics
    }
