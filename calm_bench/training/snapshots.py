"""Models kept along a training, to ask later how a score moved with the compute spent."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from calm_bench.kept_folders import make_folder

FOLDER = "snapshots"


class Snapshots:
    """Saves a model at ``count`` equally spaced steps, hence equal FLOPs; the last one is the finished model's step."""

    def __init__(self, folder: Path, count: int, save: Callable[[Path], None], writes: bool = True) -> None:
        """
        Args:
            folder: of the training; the models go into its folder ``snapshots``.
            count: 0 keeps none.
            save: writes the model as it is now into a folder.
            writes: False on workers whose part in it is that they call ``save`` too.
        """
        self._folder = folder / FOLDER
        self._count = count
        self._save = save
        self._writes = writes

    def steps(self, total_steps: int) -> tuple[int, ...]:
        """After which steps a model is kept, increasing; fewer than ``count`` in a shorter training."""
        return tuple(sorted({-(-index * total_steps // self._count) for index in range(1, self._count + 1)}))

    def note(self, step: int, total_steps: int) -> None:
        """Keep the model if this is a step to keep. A resumed training overwrites what it passes again."""
        if self._count == 0 or step not in self.steps(total_steps):
            return
        final = self._folder / f"step-{step:09d}"
        temporary = final.with_suffix(".incomplete")
        if not self._writes:
            self._save(temporary)
            return
        for old in (temporary, final):
            if old.is_dir():
                shutil.rmtree(old)
        make_folder(temporary)
        self._save(temporary)
        temporary.rename(final)


def kept_snapshots(folder: Path) -> dict[int, Path]:
    """The model folders that a training kept, by step."""
    return {int(path.name.removeprefix("step-")): path for path in sorted((folder / FOLDER).glob("step-?????????"))}
