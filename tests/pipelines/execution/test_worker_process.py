"""What a process finds in its environment before it computes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from pipelines.execution.ray_environment import travelling_code, variables_for
from pipelines.execution.worker_process import allocator_settings, prepare_process
from pipelines.store.provenance import provenance
from pipelines.study.config import Execution
from pipelines.study.stage_kind import STAGE_KINDS

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


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As far as a process can tell that computes nothing on it."""
    before, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *device: "H100")
    monkeypatch.setenv(NAMES[0], "expandable_segments:True")
    yield
    torch.set_float32_matmul_precision(before)
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "has_tf32"),
    [("evaluation", True), ("samples", True), ("benchmarks", True), ("autoencoder", False), ("language_model", False)],
)
def test_stages_that_score_or_draw_multiply_in_tf32_and_say_so_and_trainings_do_not(
    name: str, has_tf32: bool, a_gpu: None
) -> None:
    # The one that was here before left it otherwise.
    torch.set_float32_matmul_precision("highest" if has_tf32 else "high")
    device = prepare_process(STAGE_KINDS.get(name), "auto")
    assert device == "cuda"
    assert provenance(device, 0, 1.0, None).get("tf32", False) is has_tf32
    assert "tf32" not in provenance("cpu", 0, 1.0, None)
