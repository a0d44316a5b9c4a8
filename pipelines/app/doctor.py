"""Can this machine run studies? Each check says what it found and, if it is wrong, what to do."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from pipelines.store.errors import StoreForbidden, StoreUnreachable
from pipelines.store.opening import open_store

GIB = 2**30
LITTLE_MEMORY = 3 * GIB
LITTLE_DISK = 2 * GIB
RAY_PATIENCE_S = 120


@dataclass(frozen=True)
class Finding:
    """The outcome of one check; ``error`` means that studies will not run."""

    topic: str
    level: Literal["ok", "warning", "error"]
    text: str


def examine(store: str | Path | None) -> Iterator[Finding]:
    """Run all checks, cheap ones first; a check that breaks is a finding, not an exception."""
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "python": _python,
        "packages": _packages,
        "store": lambda: _store(store),
        "machine": _machine,
        "torch": _torch,
        "bf16": _bf16,
        "mlflow": lambda: _tracking(open_store(store).root),
        "optuna": _trials,
        "ray": _ray,
    }
    for topic, check in checks.items():
        try:
            yield from check()
        except Exception as error:
            # The next check may still help to find out why this one broke.
            yield Finding(topic, "error", f"{type(error).__name__}: {error}")


def _python() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")


def _packages() -> Iterator[Finding]:
    """Installed versions against the project's own requirements."""
    from packaging.requirements import Requirement

    wrong = []
    found = []
    needed = []
    for text in requires("calm-bench") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement} is missing")
            needed.append(str(requirement))
            continue
        found.append(f"{requirement.name} {installed}")
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement} is needed, {installed} is installed")
            needed.append(str(requirement))
    if wrong:
        # By what this copy was installed from nobody can tell: a checkout, an archive, an index.
        advice = f"install with: pip install {' '.join(repr(text) for text in needed)}"
        yield Finding("packages", "error", f"{'; '.join(wrong)}; {advice}")
    else:
        yield Finding("packages", "ok", ", ".join(found))


def _store(store: str | Path | None) -> Iterator[Finding]:
    opened = open_store(store)
    try:
        opened.try_out()
    except (StoreUnreachable, StoreForbidden) as error:
        yield Finding("store", "error", str(error))
        return
    existing = opened.root
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    where = opened.uri if opened.is_folder else f"{opened.uri}, worked on in {opened.root}"
    text = f"{where}, {free / GIB:.1f} GiB free"
    yield Finding("store", "ok" if free > LITTLE_DISK else "warning", text)


def _machine() -> Iterator[Finding]:
    import psutil

    from calm_bench.cgroups import memory_left
    from calm_bench.devices import available_cpus

    free, left = psutil.virtual_memory().available, memory_left()
    if left is not None:
        free = min(free, left)
    text = f"{available_cpus()} CPUs, {free / GIB:.1f} GiB memory free"
    if free > LITTLE_MEMORY:
        yield Finding("machine", "ok", text)
    else:
        yield Finding("machine", "warning", f"{text}; Ray alone needs about 1 GiB, --local does without it")


def _torch() -> Iterator[Finding]:
    import torch

    product = torch.ones(4, 4) @ torch.ones(4, 4)
    if not bool((product == 4).all()):
        yield Finding("torch", "error", "a product of two matrices is wrong; install torch again")
        return
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU only"
    yield Finding("torch", "ok", f"{torch.__version__}, {device}")


def _bf16() -> Iterator[Finding]:
    """Whether trainings on this machine's CPU are faster in the number format that GPUs use."""
    from calm_bench.bf16_speed import PAYS_FROM, bf16_speedup

    ratio = bf16_speedup()
    found = f"on this CPU a matrix product in bf16 runs at {ratio:.2g} times the speed of one in fp32"
    if ratio >= PAYS_FROM:
        advice = (
            "model.training.precision=bf16, and autoencoder.training.precision=bf16, make trainings on it faster, as "
            "another arithmetic than fp32 (docs/gpu.md)"
        )
    else:
        advice = "leave model.training.precision at auto, which is fp32 on CPUs"
    yield Finding("bf16", "ok", f"{found}: {advice}")


def _tracking(store: Path) -> Iterator[Finding]:
    from pipelines.common.redact import redact
    from pipelines.study.config import Tracking
    from pipelines.tracking.address import tracking_uri

    uri = tracking_uri(Tracking(), store)
    if not uri.startswith(("http://", "https://")):
        yield Finding("mlflow", "ok", redact(uri))
        return
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):
            yield Finding("mlflow", "ok", f"{redact(uri)} answers")
    except urllib.error.HTTPError as error:
        yield Finding("mlflow", "ok", f"{redact(uri)} answers (status {error.code})")
    except OSError as error:
        text = f"{redact(uri)} does not answer ({error}); studies run all the same and send their numbers later"
        yield Finding("mlflow", "warning", text)


def _trials() -> Iterator[Finding]:
    """Where Optuna keeps trials, unless a study says otherwise."""
    from calm_bench.overrides import ConfigurationError
    from pipelines.common.redact import redact
    from pipelines.search.postgresql import PostgresqlError
    from pipelines.search.trial_storage import VARIABLE, Database, trial_storage
    from pipelines.study.config import Execution

    try:
        storage = trial_storage(Execution(), Path(), "doctor")
        if isinstance(storage, Database):
            storage.try_out()
            yield Finding("optuna", "ok", f"{redact(os.environ[VARIABLE])} answers")
        else:
            yield Finding("optuna", "ok", "trials in a journal in the store")
    except (ConfigurationError, PostgresqlError) as error:
        yield Finding("optuna", "error", str(error))


def _ray() -> Iterator[Finding]:
    """A private Ray runs a real stage: starting it and importing the packages in a worker is what can go wrong."""
    from calm_bench.config import Corpus, Experiment, Markov
    from pipelines.execution.choose_executor import make_executor
    from pipelines.execution.executor import ExecutorError
    from pipelines.execution.run_stage import StageError
    from pipelines.store.store import Store
    from pipelines.study.config import Execution
    from pipelines.study.graph import stages_for

    experiment = Experiment(corpus=Corpus(source="markov", markov=Markov(num_documents=20, document_length=20)))
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        executor = make_executor(Execution(backend="ray"), Store(folder))
        try:
            executor.submit(stages_for(experiment)["corpus"]).result(timeout=RAY_PATIENCE_S)
        except (ExecutorError, StageError, TimeoutError) as error:
            text = str(error) or f"no answer in {RAY_PATIENCE_S} s; --local runs studies without Ray"
            yield Finding("ray", "error", text)
            return
        finally:
            executor.close()
    yield Finding("ray", "ok", f"{version('ray')} started and ran a stage in {time.monotonic() - begun:.0f} s")
