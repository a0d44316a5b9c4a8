"""Memory that a training may plan with."""

from __future__ import annotations

import pytest
import torch

from calm_bench.devices import available_memory, total_memory


def test_what_a_process_has_of_a_gpu_already_is_its_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model is on its GPU when it is asked, and what is planned counts it; so is what is cached."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (70e9, 80e9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 6e9)
    assert available_memory("cuda:1") == 76e9
    assert available_memory("cpu") == total_memory()
