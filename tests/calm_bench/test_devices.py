"""Which device a command runs on."""

from __future__ import annotations

import pytest
import torch

from calm_bench.devices import resolve_device
from calm_bench.overrides import ConfigurationError


@pytest.mark.parametrize(("has_gpu", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_a_gpu_where_there_is_one(has_gpu: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 * has_gpu)
    assert resolve_device("auto") == expected
    assert resolve_device("cpu") == "cpu"
    if has_gpu:
        assert resolve_device("cuda:1") == "cuda:1"
        with pytest.raises(ConfigurationError, match="the last GPU is cuda:1"):
            resolve_device("cuda:2")
    else:
        for device in ("cuda", "cuda:0"):
            with pytest.raises(ConfigurationError, match=f"there is no {device} here"):
                resolve_device(device)


def test_what_is_no_device_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no device 'gpu'"):
        resolve_device("gpu")


def test_a_gpu_that_is_not_there_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match=r"no cuda here: .*; leave the device out, or name cpu"):
        resolve_device("cuda")
