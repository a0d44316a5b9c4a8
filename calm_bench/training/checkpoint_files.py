"""Checkpoints on the disk: one safetensors file, or a part of each worker where the workers divide a model.

``step-000000010.safetensors`` holds a checkpoint whole, ``step-000000010.00000-of-00002.safetensors`` and its siblings
in parts: of a divided tensor each has its worker's rows, of everything else the first has all. Parts belong together if
they were saved by one call, which their metadata names by a number. Beside every file lies its SHA-256, written last:
a file without one was cut short, and neither can carry code.

A checkpoint in parts is read by any number of workers, as one in a single file is: every reader takes the rows it wants
from the files that have them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from calm_bench.atomic import write_bytes, write_with
from calm_bench.fingerprint import file_digest

_NAME = re.compile(r"step-(\d+)(?:\.(\d+)-of-(\d+))?\.safetensors")
Condition = Literal["intact", "unfinished", "damaged"]


@dataclass(frozen=True)
class Part:
    """One of the files that a checkpoint is saved in at once."""

    index: int = 0
    count: int = 1
    save: int = 0
    """A number that the parts of one checkpoint share, and no others."""

    def path(self, folder: Path, step: int) -> Path:
        name = f"step-{step:09d}" if self.count == 1 else f"step-{step:09d}.{self.index:05d}-of-{self.count:05d}"
        return folder / f"{name}.safetensors"


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of one checkpoint that are there, by part."""

    step: int
    count: int
    """How many parts a whole one has."""
    paths: tuple[Path, ...]

    @property
    def is_finished(self) -> bool:
        """Whether all parts are there with their digests, of one call; says nothing of damage since."""
        return self._has_all_parts and self._parts_belong_together

    def condition(self) -> Condition:
        """Reads every file."""
        if not self._has_all_parts:
            return "unfinished"
        if any(_digest_file(path).read_text() != file_digest(path) for path in self.paths):
            return "damaged"
        return "intact" if self._parts_belong_together else "unfinished"

    @property
    def _has_all_parts(self) -> bool:
        return len(self.paths) == self.count and all(_digest_file(path).exists() for path in self.paths)

    @property
    def _parts_belong_together(self) -> bool:
        return self.count == 1 or len({_save_of(path) for path in self.paths}) == 1

    def validation_loss(self) -> float | None:
        """What its counters tell, without reading its tensors; None too where they cannot be read."""
        try:
            with safe_open(self.paths[0], framework="pt") as file:
                loss: float | None = json.loads(file.metadata()["counters"]).get("validation_loss")
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            return None
        return loss

    def remove(self) -> None:
        for path in self.paths:
            _digest_file(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)


class StoredTensors:
    """Tensors of an opened checkpoint, by name, and its ``counters``."""

    def __init__(self, files: Sequence[Any]) -> None:
        self._files = files
        metadata = files[0].metadata()
        self.counters: dict[str, Any] = json.loads(metadata["counters"])
        self._shapes: dict[str, list[int]] = json.loads(metadata.get("divided", "{}"))
        """Whole shapes of the tensors whose rows are divided among the files."""

    def names(self) -> list[str]:
        return list(self._files[0].keys())

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return tuple(self._shapes[name])
        return tuple(self._files[0].get_slice(name).get_shape())

    def whole(self, name: str) -> Tensor:
        if name in self._shapes:
            return self.rows(name, 0, self._shapes[name][0])
        tensor: Tensor = self._files[0].get_tensor(name)
        return tensor

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows ``start`` to before ``stop``, read from the files that have them."""
        if name not in self._shapes:
            found: Tensor = self._files[0].get_slice(name)[start:stop]
            return found
        total, pieces = self._shapes[name][0], []
        for index, file in enumerate(self._files):
            first, last = divided_rows(total, index, len(self._files))
            begin, end = max(start, first), min(stop, last)
            if begin < end:
                pieces.append(file.get_slice(name)[begin - first : end - first])
        # Of few rows the last workers have none.
        return torch.cat(pieces) if pieces else self._files[0].get_slice(name)[0:0]


def divided_rows(total: int, index: int, count: int) -> tuple[int, int]:
    """The rows of a tensor, from and to before, that one of ``count`` workers has: those of ``torch.chunk``."""
    each = ceil(total / count)
    return min(index * each, total), min((index + 1) * each, total)


def write_part(
    folder: Path,
    step: int,
    part: Part,
    tensors: dict[str, Tensor],
    counters: dict[str, Any],
    whole: dict[str, list[int]],
) -> None:
    """Write one file of a checkpoint, then its digest.

    Args:
        tensors: on the CPU.
        whole: whole shapes of those of them that are a worker's rows.
    """
    path = part.path(folder, step)
    metadata = {"counters": json.dumps(counters)}
    if part.count > 1:
        metadata |= {"divided": json.dumps(whole), "save": str(part.save)}
    # A digest of what an earlier attempt left under this name would call the new file damaged.
    _digest_file(path).unlink(missing_ok=True)
    write_with(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))
    write_bytes(_digest_file(path), file_digest(path).encode())


def checkpoints_in(folder: Path) -> list[CheckpointFiles]:
    """All checkpoints of a training, unfinished ones too, the newest last."""
    found: dict[tuple[int, int], list[Path]] = {}
    for path in sorted(folder.glob("step-*.safetensors")):
        if match := _NAME.fullmatch(path.name):
            step, _, count = match.groups()
            found.setdefault((int(step), int(count or 1)), []).append(path)
    return [CheckpointFiles(step, count, tuple(paths)) for (step, count), paths in sorted(found.items())]


def files_of(folder: Path, step: int, count: int) -> CheckpointFiles:
    """The files of a whole checkpoint in ``count`` parts."""
    return CheckpointFiles(step, count, tuple(Part(index, count).path(folder, step) for index in range(count)))


@contextmanager
def opened(files: CheckpointFiles) -> Iterator[StoredTensors]:
    """The tensors of a checkpoint, to be read while the block runs."""
    with ExitStack() as stack:
        yield StoredTensors([stack.enter_context(safe_open(path, framework="pt")) for path in files.paths])


def _digest_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _save_of(path: Path) -> str | None:
    """The call that a part was saved by; None where it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            save: str | None = file.metadata().get("save")
    except (SafetensorError, OSError, AttributeError):
        return None
    return save
