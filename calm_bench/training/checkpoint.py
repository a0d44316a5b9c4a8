"""Checkpoints: all that a training needs to go on as if nothing had happened.

A checkpoint is one safetensors file (tensors, and the loop's counters as JSON metadata) beside its SHA-256. The digest
is written last, so a file without one was cut short; neither can carry code.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from calm_bench.atomic import write_bytes, write_with
from calm_bench.fingerprint import file_digest

KEEP = 2


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


class Checkpoints:
    """The checkpoints of one training, newest last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, counters: Counters) -> None:
        """Write a checkpoint, then drop all but the newest two."""
        tensors = {f"model.{name}": tensor for name, tensor in _trained_state(model).items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        path = self.folder / f"step-{counters.step:09d}.safetensors"
        metadata = {"counters": json.dumps(vars(counters))}
        write_with(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))
        write_bytes(path.with_suffix(".sha256"), file_digest(path).encode())
        for old in self._files()[:-KEEP]:
            old.with_suffix(".sha256").unlink(missing_ok=True)
            old.unlink()

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
