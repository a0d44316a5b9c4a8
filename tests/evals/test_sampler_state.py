"""Weights of a sampler count wherever they lie in it, and nothing else does."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from evals.sampler_state import weights_digest


class Holder:
    """What a sampler may be: parts of it vary from one time to the next."""

    def __init__(self, **parts: Any) -> None:
        self.started, self.lock, self.numpy = time.time(), threading.Lock(), np
        self.me = self
        vars(self).update(parts)


def linear(value: float) -> torch.nn.Module:
    module = torch.nn.Linear(2, 2)
    with torch.no_grad():
        module.weight.fill_(value)
        module.bias.fill_(value)
    return module


@pytest.mark.parametrize(
    "part",
    [
        lambda value: {"network": linear(value)},
        lambda value: {"inner": Holder(network=linear(value))},
        lambda value: {"layers": [linear(0.0), {"last": linear(value)}]},
        lambda value: {"table": np.full((3, 0 if value == 0 else 2), value)},
        lambda value: {"table": torch.full((2,), value, dtype=torch.bfloat16)},
        lambda value: {"table": torch.tensor(value)},
    ],
)
def test_weights_are_seen(part: Any) -> None:
    assert weights_digest(Holder(**part(1.0))) == weights_digest(Holder(**part(1.0))) is not None
    assert weights_digest(Holder(**part(1.0))) != weights_digest(Holder(**part(2.0)))


def test_a_sampler_without_weights() -> None:
    assert weights_digest(Holder(names=np.array(["a", None], dtype=object))) is None
