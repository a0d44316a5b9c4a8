"""Checkpoints: all that a training needs to go on as if nothing had happened.

A checkpoint is one safetensors file (tensors, and the loop's counters as JSON metadata) beside its SHA-256. The digest
is written last, so a file without one was cut short; neither can carry code. Kept are the newest and the best.

A training goes on while its checkpoint is written: its tensors are copied first, and a thread writes, hashes and syncs
the copies.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from calm_bench.atomic import write_bytes, write_with
from calm_bench.fingerprint import file_digest
from calm_bench.training.background import BackgroundWork
from calm_bench.training.parallel import current_workers, divided_like, whole_tensor
from calm_bench.training_options import KEEP_CHECKPOINTS

_PREFIX = "step-"
_NONE = -1
"""The step of no checkpoint."""


@dataclass(frozen=True)
class Counters:
    """Where a training stands; random streams are functions of ``step``, so they need no place here."""

    step: int
    elapsed: float
    """Seconds spent in all runs so far."""
    metrics_size: int
    """Bytes of ``metrics.jsonl`` that belong to the steps before this checkpoint."""
    progress: dict[str, Any]
    """Running averages and reference losses of the loop."""
    loader: dict[str, Any]
    validation_loss: float | None = None
    """Validation loss of this very model; None where it was not validated."""


class Checkpoints:
    """The checkpoints of one training, newest last."""

    def __init__(self, folder: Path, keep: int = KEEP_CHECKPOINTS) -> None:
        """
        Args:
            keep: how many of the newest are kept beside the best. No part of a training's configuration: where disks
                are small or errors frequent is no reason for other numbers.

        Raises:
            ValueError: ``keep`` is below 1.
        """
        if keep < 1:
            raise ValueError(f"a training must keep at least one checkpoint to go on from, not {keep}")
        self.folder = folder
        self.keep = keep
        self._writing = BackgroundWork()
        self._pinned: dict[str, Tensor] = {}
        """Page-locked copies on the CPU of a GPU's tensors, used again by every checkpoint."""

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, counters: Counters) -> None:
        """Copy a checkpoint, and write it beside the steps that follow; then all but the newest and the one of the
        lowest validation loss are dropped.

        Of several workers all must call it: the first one writes what the others may have in pieces. A checkpoint that
        is still being written is waited for first.

        Raises:
            OSError: the checkpoint before could not be written.
        """
        self.join()
        tensors = {f"model.{name}": tensor for name, tensor in _trained_state(model).items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        is_first = current_workers().is_first
        for name in list(tensors):
            # One at a time, so that a worker never holds the whole of a model that is divided.
            whole = whole_tensor(tensors.pop(name).detach())
            if is_first:
                tensors[name] = self._copied(name, whole)
        if is_first:
            if self._pinned:
                torch.cuda.synchronize()
            self._writing.start(lambda: self._write(tensors, counters))

    def join(self) -> None:
        """Wait until what was saved lies on the disk.

        Raises:
            OSError: it could not be written.
        """
        self._writing.join()

    def _copied(self, name: str, tensor: Tensor) -> Tensor:
        """A copy that the next step leaves alone; of a GPU's tensor not complete before the device is waited for."""
        if not tensor.is_cuda:
            return tensor.cpu().clone(memory_format=torch.contiguous_format)
        if name not in self._pinned:
            self._pinned[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return self._pinned[name].copy_(tensor, non_blocking=True)

    def _write(self, tensors: dict[str, Tensor], counters: Counters) -> None:
        path = self._path(counters.step)
        metadata = {"counters": json.dumps(vars(counters))}
        write_with(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))
        write_bytes(path.with_suffix(".sha256"), file_digest(path).encode())
        best = self.best()
        for old in self._files()[: -self.keep]:
            if old != best:
                old.with_suffix(".sha256").unlink(missing_ok=True)
                old.unlink()

    def best(self) -> Path | None:
        """The checkpoint of the lowest validation loss, the newer of equals; None where none was validated."""
        losses = {path: loss for path in self._files() if (loss := _validation_loss(path)) is not None}
        return min(reversed(losses), key=losses.__getitem__, default=None)

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Counters | None:
        """Load the newest intact checkpoint into ``model`` and ``optimizer``; ``None`` where there is none.

        A damaged one is passed over with a warning, one that was being written when its process ended without. Workers
        that share a training all read the one that the first of them has found, however many had written it.
        """
        workers = current_workers()
        step = workers.told(self._newest_intact() if workers.is_first else 0)
        if step == _NONE:
            return None
        with safe_open(self._path(step), framework="pt") as file:
            counters = Counters(**json.loads(file.metadata()["counters"]))
            _restore_model(model, file)
            _restore_optimizer(optimizer, file)
        return counters

    def _newest_intact(self) -> int:
        files = self._files()
        for path in reversed(files):
            digest = path.with_suffix(".sha256")
            if digest.exists() and digest.read_text() == file_digest(path):
                return int(path.stem.removeprefix(_PREFIX))
            # The newest without one was being written when the process ended: nothing that anyone has to look at.
            if digest.exists() or path != files[-1]:
                warnings.warn(f"{path} is damaged: going back to the checkpoint before it", stacklevel=3)
        return _NONE

    def _path(self, step: int) -> Path:
        return self.folder / f"{_PREFIX}{step:09d}.safetensors"

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"{_PREFIX}*.safetensors"))


def _validation_loss(path: Path) -> float | None:
    """What a checkpoint's counters tell, without reading its tensors; None too where they cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            loss: float | None = json.loads(file.metadata()["counters"]).get("validation_loss")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None
    return loss


def _trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters that training changes, and buffers; a frozen autoencoder is read from its own stage instead."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def _restore_model(model: nn.Module, file: Any) -> None:
    state = model.state_dict()
    for name in file.keys():  # noqa: SIM118
        kind, _, own = name.partition(".")
        if kind == "model":
            state[own] = divided_like(file.get_tensor(name), state[own])
    model.load_state_dict(state)


def _restore_optimizer(optimizer: torch.optim.Optimizer, file: Any) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name in file.keys():  # noqa: SIM118
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, field = rest.partition(".")
            value, parameter = file.get_tensor(name), parameters[int(index)]
            # Counts of steps are scalars, which every worker has.
            own = divided_like(value, parameter) if value.shape == parameter.shape else value
            state.setdefault(int(index), {})[field] = own
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
