"""What a process finds in its environment before it computes."""

from __future__ import annotations

import pytest

from pipelines.execution.ray_environment import travelling_code, variables_for
from pipelines.execution.worker_process import allocator_settings
from pipelines.study.config import Execution

NAMES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def test_memory_on_a_gpu_grows_where_it_lies_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    wanted = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    assert allocator_settings() == wanted
    assert wanted.items() <= variables_for(Execution()).items()
    assert wanted.items() <= travelling_code()["env_vars"].items()
    for name in NAMES:
        with monkeypatch.context() as patch:
            patch.setenv(name, "max_split_size_mb:128")
            assert allocator_settings() == {}
            assert not set(NAMES) & variables_for(Execution()).keys()
