"""A class of one's own whose samples have another shape is refused before anything is trained."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import Generator, Tensor, nn

from calm_bench.head_config import CustomHead
from calm_bench.heads import Head
from calm_bench.heads.custom import counted_cost
from calm_bench.overrides import ConfigurationError


class Linear(Head):
    """The mean of a Gaussian."""

    def __init__(self, hidden_size: int, latent_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, latent_size)

    def loss(
        self, hidden: Tensor, target_mean: Tensor, target_log_std: Tensor, generator: Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return (self.linear(hidden) - target_mean).square().mean(), {}

    def sample(self, hidden: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        mean = self.linear(hidden)
        return mean + torch.randn((num_samples, *mean.shape), generator=generator)


class WithoutSamples(Linear):
    def sample(self, hidden: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        return self.linear(hidden)


class SamplesLast(Linear):
    def sample(self, hidden: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        return super().sample(hidden, num_samples, generator).movedim(0, -2)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("own_heads")
    vars(module).update({cls.__name__: cls for cls in (Linear, WithoutSamples, SamplesLast)})
    monkeypatch.setitem(sys.modules, "own_heads", module)


def test_the_right_shape_is_counted() -> None:
    assert counted_cost(CustomHead(target="own_heads:Linear"), 16, 4)[1] == 2 * 16 * 4


@pytest.mark.parametrize("name", ["WithoutSamples", "SamplesLast"])
def test_another_shape_is_refused_with_both(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"gives \(.*instead of \(5, 2, 3, 4\)"):
        counted_cost(CustomHead(target=f"own_heads:{name}"), 16, 4)
