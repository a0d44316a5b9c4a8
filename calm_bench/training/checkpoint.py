"""Checkpoints: all that a training needs to go on as if nothing had happened.

A checkpoint is one safetensors file (tensors, and the loop's counters as JSON metadata) beside its SHA-256. The digest
is written last, so a file without one was cut short; neither can carry code. Kept are the newest and the best.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from calm_bench.atomic import write_bytes, write_with
from calm_bench.fingerprint import file_digest

KEEP = 2
"""Newest checkpoints of a training that are kept, unless :func:`keeping` says otherwise."""

_keep: ContextVar[int] = ContextVar("keep", default=KEEP)


@contextmanager
def keeping(count: int) -> Iterator[None]:
    """Let trainings inside the block keep their ``count`` newest checkpoints.

    No part of a training's configuration: where disks are small or errors frequent is no reason for other numbers.

    Raises:
        ValueError: ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"a training must keep at least one checkpoint to go on from, not {count}")
    before = _keep.set(count)
    try:
        yield
    finally:
        _keep.reset(before)


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
    """Of this very model; None where it was not validated."""


class Checkpoints:
    """The checkpoints of one training, newest last."""

    def __init__(self, folder: Path, keep: int | None = None) -> None:
        """Args: ``keep``, how many of the newest are kept beside the best; unset means :func:`keeping`'s number."""
        self.folder = folder
        self.keep = _keep.get() if keep is None else keep

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, counters: Counters) -> None:
        """Write a checkpoint, then drop all but the newest and the one of the lowest validation loss."""
        tensors = {f"model.{name}": tensor for name, tensor in _trained_state(model).items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        path = self.folder / f"step-{counters.step:09d}.safetensors"
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

        A damaged one is passed over with a warning.
        """
        for path in reversed(self._files()):
            digest = path.with_suffix(".sha256")
            if not digest.exists() or digest.read_text() != file_digest(path):
                warnings.warn(f"{path} is damaged or incomplete: going back to the checkpoint before it", stacklevel=2)
                continue
            with safe_open(path, framework="pt") as file:
                counters = Counters(**json.loads(file.metadata()["counters"]))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            _restore_model(model, tensors)
            _restore_optimizer(optimizer, tensors)
            return counters
        return None

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"))


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


def _restore_model(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    state = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    model.load_state_dict({**model.state_dict(), **state})


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, field = rest.partition(".")
            state.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
