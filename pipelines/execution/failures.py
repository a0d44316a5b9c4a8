"""Why a stage failed: whether trying again may help, and what to say when memory ran out."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pipelines.study.stage import Stage

Cause = Literal["permanent", "passing", "memory"]
"""``passing``: a worker, a disk or a network let the stage down, and the next try may do better. ``memory``: it does
not fit, and would not fit the next time either. ``permanent``: the same would happen again."""

_MEMORY_TEXTS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
_MISTAKES = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
"""Errors of files that lie in what was asked for rather than in the machine."""
_IO_TEXTS = ("i/o error", "no space left on device", "disk quota exceeded", "file too large")
"""How libraries that raise no OSError tell of one."""


class WorkerFailed(Exception):
    """What failed in another process, in words only, so that it crosses its border whatever the error was."""

    def __init__(self, name: str, text: str, details: str, cause: Cause) -> None:
        super().__init__(name, text, details, cause)
        self.name = name
        """Class of the error."""
        self.text = text
        self.details = details
        """The traceback there."""
        self.cause: Cause = cause

    @staticmethod
    def of(error: BaseException) -> WorkerFailed:
        """The words of ``error``, which is being handled."""
        return WorkerFailed(type(error).__name__, str(error), traceback.format_exc(), cause_of(error))

    def __str__(self) -> str:
        return self.text


def name_of(error: BaseException) -> str:
    """The class of ``error``, here or where it was raised."""
    return error.name if isinstance(error, WorkerFailed) else type(error).__name__


def cause_of(error: BaseException) -> Cause:
    """What kind of failure ``error`` is, by itself or by what it was raised from."""
    chain = list(_chain(error))
    if told := [link.cause for link in chain if isinstance(link, WorkerFailed)]:
        return told[0]
    if any(_is_memory(link) for link in chain):
        return "memory"
    if any(_is_passing(link) for link in chain):
        return "passing"
    return "permanent"


def memory_report(stage: Stage) -> str:
    """The size of a stage that did not fit into memory, and what makes it fit."""
    config, section = _section(stage)
    if config is None:
        return (
            "it was given no more memory than that: let fewer stages run at once (execution.max_parallel), or declare "
            "what one needs (execution.memory_per_stage)"
        )
    training = config["training"]
    parts, length = training["gradient_accumulation"], training["sequence_length"]
    sequences = training["batch_size"] // parts
    size = f"{sequences} sequences of {length:,} tokens at once"
    parameters = _parameters(stage)
    if parameters is not None:
        size = f"{parameters:,} parameters, {size}"
    more = next((n for n in range(parts + 1, training["batch_size"] + 1) if training["batch_size"] % n == 0), None)
    advice = "lower the model's size or training.sequence_length"
    if more is not None:
        fewer = training["batch_size"] // more
        advice = f"{section}.training.gradient_accumulation={more} has {fewer} sequences at once for the same steps"
    return f"it has {size}: {advice}, or let fewer stages run at once (execution.max_parallel)"


def kernel_kills() -> int:
    """How many processes the kernel's out-of-memory killer has ended here so far; 0 where it does not tell."""
    # In a container the machine's count would also tell of its neighbours.
    own = Path("/sys/fs/cgroup/memory.events")
    return _counter(own if own.exists() else Path("/proc/vmstat"), "oom_kill")


def _counter(path: Path, name: str) -> int:
    """The number behind ``name`` in a file of ``name number`` lines."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    fields = (line.split() for line in lines)
    return sum(int(field[1]) for field in fields if len(field) == 2 and field[0] == name and field[1].isdigit())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def _is_memory(error: BaseException) -> bool:
    # By name: torch and Ray have a class of this name each, and neither should be imported for it.
    if isinstance(error, MemoryError) or any(base.__name__ == "OutOfMemoryError" for base in type(error).__mro__):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _MEMORY_TEXTS)


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return not isinstance(error, _MISTAKES)
    return type(error).__name__ == "SafetensorError" and any(text in str(error).lower() for text in _IO_TEXTS)


def _section(stage: Stage) -> tuple[dict[str, Any] | None, str]:
    """The part of a stage's configuration that is trained, and what it is called in an experiment."""
    section = {"autoencoder": "autoencoder", "language_model": "model"}.get(stage.kind, "")
    found = stage.config.get(section)
    return (found, section) if isinstance(found, dict) and "training" in found else (None, "")


def _parameters(stage: Stage) -> int | None:
    """Trained parameters; None where the vocabulary is not known without the tokens at hand."""
    from calm_bench.config import Tokens
    from calm_bench.flops import autoencoder_parameter_count, parameter_count
    from calm_bench.overrides import ConfigurationError
    from pipelines.study.kinds.runners import autoencoder_experiment, language_model_experiment
    from pipelines.study.price import assumed_vocab_size

    try:
        vocab_size = assumed_vocab_size(Tokens.model_validate(stage.inputs["tokens"].settings["tokens"]))
    except (ConfigurationError, KeyError):
        return None
    if stage.kind == "autoencoder":
        experiment = autoencoder_experiment(stage)
        chunk_size = experiment.model.chunk_size
        return round(autoencoder_parameter_count(experiment.autoencoder, chunk_size, vocab_size).total)
    experiment = language_model_experiment(stage)
    return round(parameter_count(experiment.model, experiment.autoencoder, vocab_size).total)
