"""Weights of a sampler count wherever they lie in it, and nothing else does."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
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


class Slotted:
    __slots__ = ("table",)

    def __init__(self, value: float) -> None:
        self.table = np.full(2, value)


def bound(value: float) -> Callable[[], float]:
    table = np.full(2, value)
    return lambda: float(table.sum())


def of_class(value: float) -> object:
    return type("Own", (Holder,), {"TABLE": np.full(2, value), "__module__": __name__})()


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
        lambda value: {"score": bound(value)},
        lambda value: {"score": partial(max, np.full(2, value))},
        lambda value: {"score": Holder(network=linear(value)).__eq__, "f": bound(value)},
        lambda value: {"inner": Slotted(value)},
        lambda value: {"inner": SimpleNamespace(table=np.full(2, value))},
        lambda value: {"counts": Counter({"a": int(value), "b": 1})},
        lambda value: {"counts": {("a", "b"): {"c": value}}},
        lambda value: {"row": [np.float64(value), np.float64(3.0)]},
    ],
)
def test_weights_are_seen(part: Any) -> None:
    assert weights_digest(Holder(**part(1.0))) == weights_digest(Holder(**part(1.0))) is not None
    assert weights_digest(Holder(**part(1.0))) != weights_digest(Holder(**part(2.0)))


def test_weights_of_a_class_and_of_its_module_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights_digest(of_class(1.0)) == weights_digest(of_class(1.0)) is not None
    assert weights_digest(of_class(1.0)) != weights_digest(of_class(2.0))
    found = []
    for value in (1.0, 1.0, 2.0):
        monkeypatch.setattr(sys.modules[__name__], "TABLE", np.full(2, value), raising=False)
        found.append(weights_digest(Holder()))
    assert found[0] == found[1] != found[2]


def test_a_sampler_without_weights() -> None:
    parts = {"names": np.array(["a", None], dtype=object), "log": logging.getLogger("a"), "drawn": []}
    assert weights_digest(Holder(**parts)) is None
