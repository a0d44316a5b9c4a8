"""Closed-form memory against the peak of real processes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from calm_bench import blockwise, memory
from calm_bench.config import Experiment
from calm_bench.lm import tree
from evals import evaluate

WITHIN = 0.25
LIBRARIES = 130e6
"""Bytes of libraries in memory, by which a process is larger than what it has of its own: 120 to 190 MB are seen."""

SIZES = {
    "chunks": {
        "autoencoder": {"hidden_size": 128, "intermediate_size": 256, "training": {"num_steps": 9, "batch_size": 16}},
        "evaluation": {"position_stride": 32},
        "samples": {"num_tokens": 2, "temperatures": [0.5]},
        "model": {"chunk_size": 2, "hidden_size": 256, "intermediate_size": 512, "num_layers": 2,
                  "training": {"num_steps": 9, "batch_size": 16}},
    },
    "token": {
        "evaluation": {"position_stride": 32, "num_samples": 4},
        "model": {"kind": "token", "hidden_size": 256, "intermediate_size": 512,
                  "training": {"num_steps": 9, "batch_size": 16}},
    },
}  # fmt: skip
CASES = [
    ("chunks", "autoencoder", 2000),
    ("chunks", "training", 2000),
    ("token", "evaluation", 4000),
    ("chunks", "sampling", 8000),
]

# One process imports, and a fork of it does one kind of work each, so that a peak is that work's own.
MEASURED = """
import json, os, re, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from pipelines.study.kinds.measured_speed import _texts, _window
from calm_bench.config import Experiment
from calm_bench.training.speed import autoencoder_speed, language_model_speed
from calm_bench.lm.folder import build_language_model
from calm_bench.training.autoencoder import untrained

def peak():
    # Not getrusage: its peak goes on from the process that this one was started by. Without the pages of libraries:
    # how many of them are mapped at once depends on how long ago their files were written.
    status = Path("/proc/self/status").read_text()
    whole, of_files = (int(re.search(rf"{name}:\\s*(\\d+)", status)[1]) for name in ("VmHWM", "RssFile"))
    return whole - of_files

print(peak() * 1024)
sizes, cases = json.loads(sys.stdin.read())
for name, kind, vocab_size in cases:
    read, write = os.pipe()
    if os.fork() == 0:
        before = peak()
        experiment = Experiment.model_validate(sizes[name])
        if kind == "autoencoder":
            autoencoder_speed(experiment, vocab_size, "cpu", 0.01)
        elif kind == "training":
            language_model_speed(experiment, vocab_size, "cpu", 0.01)
        else:
            autoencoder = untrained(experiment, vocab_size) if experiment.model.kind == "calm" else None
            model = build_language_model(experiment.model, vocab_size, autoencoder, 0).eval()
            (_window if kind == "evaluation" else _texts)(experiment, model)
        more = peak() - before
        os.write(write, str(more * 1024).encode())
        os._exit(0)
    os.wait()
    print(os.read(read, 100).decode(), flush=True)
"""


def test_constants_are_those_of_the_code() -> None:
    assert memory.MAX_LOGITS == blockwise.MAX_LOGITS
    assert memory.MAX_LOGITS_ON_GPU == blockwise.MAX_LOGITS_ON_GPU
    assert memory.CACHED_LOGITS == blockwise.CACHED_LOGITS
    assert memory.CACHED_LOGITS_ON_GPU == blockwise.CACHED_LOGITS_ON_GPU
    assert memory.MAX_SCORES == {"cpu": tree.MAX_SCORES, "cuda": tree.MAX_SCORES * tree.ON_GPU}
    assert memory.WINDOWS_AT_ONCE == evaluate.WINDOWS_AT_ONCE


def closed_form(name: str, kind: str, vocab_size: int) -> float:
    experiment = Experiment.model_validate(SIZES[name])
    model = experiment.model
    autoencoder = experiment.autoencoder if model.kind == "calm" else None
    if kind == "autoencoder":
        found = memory.autoencoder_training_memory(experiment.autoencoder, model.chunk_size, vocab_size)
    elif kind == "training":
        found = memory.training_memory(model, autoencoder, vocab_size)
    elif kind == "evaluation":
        found = memory.evaluation_memory(model, autoencoder, vocab_size, experiment.evaluation)
    else:
        found = memory.sampling_memory(model, autoencoder, vocab_size, experiment.samples)
    return found.total


@pytest.mark.skipif(sys.platform != "linux", reason="peaks of forks are read as Linux counts them")
@pytest.mark.extended
def test_the_closed_form_is_near_the_peak_of_a_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURED],
        input=json.dumps([SIZES, CASES]),
        capture_output=True,
        text=True,
        check=True,
    )
    own, *more = [float(line) for line in done.stdout.split()]
    process = own + LIBRARIES
    assert process == pytest.approx(memory.PROCESS_BYTES["cpu"], rel=WITHIN)
    ratios = {case: closed_form(*case) / (process + work) for case, work in zip(CASES, more, strict=True)}
    assert all(1 - WITHIN < ratio < 1 + WITHIN for ratio in ratios.values()), ratios


def test_smaller_micro_batches_need_less() -> None:
    def peak(accumulation: int) -> float:
        training = {"num_steps": 9, "batch_size": 16, "gradient_accumulation": accumulation}
        sizes = {**SIZES["chunks"], "model": {**SIZES["chunks"]["model"], "training": training}}
        experiment = Experiment.model_validate(sizes)
        return memory.training_memory(experiment.model, experiment.autoencoder, 2000).total

    fixed = peak(16) - (peak(8) - peak(16))
    assert fixed < peak(16) < peak(8) < peak(1)
    assert peak(1) - fixed == pytest.approx(2 * (peak(2) - fixed), rel=0.01)
