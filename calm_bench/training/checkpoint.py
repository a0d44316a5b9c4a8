"""Checkpoints: all that a training needs to go on as if nothing had happened.

A checkpoint is its tensors and the loop's counters (:mod:`calm_bench.training.checkpoint_files`). Kept are the newest
and the best. A training goes on while its checkpoint is written: its tensors are copied first, and a thread writes,
hashes and syncs the copies. Workers that divide a model write a part each, and none of them gathers it.
"""

from __future__ import annotations

import secrets
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from calm_bench.atomic import remove_unfinished
from calm_bench.training.background import BackgroundWork
from calm_bench.training.checkpoint_files import (
    CheckpointFiles,
    Part,
    StoredTensors,
    checkpoints_in,
    files_of,
    opened,
    write_part,
)
from calm_bench.training.parallel import current_workers, is_divided, own_rows_of, read_like
from calm_bench.training_options import KEEP_CHECKPOINTS


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

        Of several workers all must call it. What they have whole the first one writes; of what is divided, each
        writes its own. A checkpoint that is still being written is waited for first.

        Raises:
            OSError: the checkpoint before could not be written.
        """
        self.join()
        tensors = {f"model.{name}": tensor for name, tensor in _trained_state(model).items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        workers = current_workers()
        shapes = {name: list(tensor.shape) for name, tensor in tensors.items() if is_divided(tensor)}
        part = Part(workers.rank, workers.size, workers.told(secrets.randbits(62))) if shapes else Part()
        own = {name: own_rows_of(tensor) for name, tensor in tensors.items() if name in shapes or workers.is_first}
        copied = {
            name: self._copied(name, tensor.detach())
            for name, tensor in own.items()
            if name not in shapes or len(tensor)
        }
        if workers.is_first or shapes:
            # The device that is current may be another one.
            for device in {tensor.device for tensor in own.values() if tensor.is_cuda}:
                torch.cuda.synchronize(device)
            self._writing.start(lambda: self._write(counters, part, copied, shapes))

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

    def _write(self, counters: Counters, part: Part, tensors: dict[str, Tensor], shapes: dict[str, list[int]]) -> None:
        write_part(self.folder, counters.step, part, tensors, vars(counters), shapes)
        if part.index == 0:
            self._drop_old()

    def _drop_old(self) -> None:
        """Leave what is being written alone: other workers may not be done with their parts of the newest."""
        found = checkpoints_in(self.folder)
        finished = [files for files in found if files.is_finished]
        kept = [*finished[-self.keep :], self.best()]
        for files in found:
            if finished and files.step < finished[-1].step and files not in kept:
                files.remove()

    def best(self) -> CheckpointFiles | None:
        """The checkpoint of the lowest validation loss, the newer of equals; None where none was validated."""
        finished = [files for files in checkpoints_in(self.folder) if files.is_finished]
        losses = {files: loss for files in finished if (loss := files.validation_loss()) is not None}
        return min(reversed(losses), key=losses.__getitem__, default=None)

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Counters | None:
        """Load the newest intact checkpoint into ``model`` and ``optimizer``; ``None`` where there is none.

        A damaged one is passed over with a warning, one that was being written when its process ended without. Workers
        that share a training all read the one that the first of them has found, each its own part, however many had
        written it. What was being written then is removed: it is as large as a checkpoint, and every kill leaves one.
        """
        workers = current_workers()
        newest = None
        if workers.is_first:
            newest = self._newest_intact()
            if self.folder.is_dir():
                # Nobody writes before all workers have been told where they go on.
                remove_unfinished(self.folder, older_than_s=-1.0)
        step, count = (workers.told(number) for number in ((newest.step, newest.count) if newest else (0, 0)))
        if count == 0:
            return None
        with opened(files_of(self.folder, step, count)) as stored:
            _restore_model(model, stored)
            _restore_optimizer(optimizer, stored)
            return Counters(**stored.counters)

    def _newest_intact(self) -> CheckpointFiles | None:
        found = checkpoints_in(self.folder)
        for files in reversed(found):
            condition = files.condition()
            if condition == "intact":
                return files
            # The newest unfinished one was being written when the process ended: nothing that anyone has to look at.
            if condition == "damaged" or files != found[-1]:
                warnings.warn(f"{files.paths[0]} is damaged: going back to the checkpoint before it", stacklevel=3)
        return None


def _trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters that training changes, and buffers; a frozen autoencoder is read from its own stage instead."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def _restore_model(model: nn.Module, stored: StoredTensors) -> None:
    state = model.state_dict()
    for name in stored.names():
        kind, _, own = name.partition(".")
        if kind == "model":
            state[own] = read_like(stored, name, state[own])
    model.load_state_dict(state)


def _restore_optimizer(optimizer: torch.optim.Optimizer, stored: StoredTensors) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name in stored.names():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, field = rest.partition(".")
            parameter = parameters[int(index)]
            # Counts of steps are scalars, which every worker has.
            own = read_like(stored, name, parameter) if stored.shape(name) == parameter.shape else stored.whole(name)
            state.setdefault(int(index), {})[field] = own
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
