"""Running means of what a training tells, kept on its device until they are read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

Name = TypeVar("Name", bound=Hashable)


@dataclass
class Averages:
    """Sums of scalars kept on the device: reading one every step would make a GPU wait for the CPU."""

    sums: defaultdict[str, Tensor | float] = field(default_factory=lambda: defaultdict(float))
    count: int = 0

    def add(self, terms: dict[str, Tensor], count: int = 1) -> None:
        """Args: ``terms``, each the sum of ``count`` values."""
        self.count += count
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value

    def means(self) -> dict[str, float]:
        return {name: value / self.count for name, value in fetched(self.sums).items()}

    def clear(self) -> None:
        self.sums.clear()
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "sums": fetched(self.sums)}

    def load_state_dict(self, state: dict[str, Any], device: str) -> None:
        self.count = state["count"]
        # Back to fp32 tensors, so that the sums go on with the very roundings of an undisturbed run.
        self.sums.update({name: torch.tensor(value, device=device) for name, value in state["sums"].items()})


def fetched(values: Mapping[Name, Tensor | float]) -> dict[Name, float]:
    """Scalars as numbers, with one wait for the device however many there are.

    A few may lie on the CPU beside a GPU's: the norm of no gradients at all, and what a head from elsewhere tells.
    """
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    device = next((value.device for value in tensors.values() if value.device.type != "cpu"), None)
    scalars = [value.detach().to(device, torch.float32) for value in tensors.values()]
    numbers = torch.stack(scalars).tolist() if scalars else []
    read = dict(zip(tensors, numbers, strict=True))
    return {name: read[name] if name in read else float(value) for name, value in values.items()}
