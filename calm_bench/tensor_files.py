"""Tensors of a folder's weight files: one file or several, safetensors or pickled, with an index or without.

A pickle can carry code, so it is read with torch's tensors-only unpickler and refused by name if it holds more.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from calm_bench.errors import RunError
from calm_bench.file_signs import misread_file, why_unreadable
from calm_bench.json_text import parse_json_text

SAFETENSORS = "model.safetensors"
PICKLE = "pytorch_model.bin"
SHARD = re.compile(r"-(\d+)-of-(\d+)$")
MAX_LISTED = 8


class WeightsError(RunError, ValueError):
    """A folder does not hold the model that was asked for; the message lists what differs."""


def read_tensors(folder: Path, pickles: bool = False) -> dict[str, Tensor]:
    """All tensors of a model folder, on the CPU.

    Safetensors win over pickles where both are there. An index decides which files belong to the model; without one
    all files of the name ``model*.safetensors`` (``pytorch_model*.bin``) do, and numbered ones must be complete.

    Args:
        pickles: also read ``pytorch_model*.bin``.

    Raises:
        WeightsError: no weight file, one that is missing or damaged or carries more than tensors, an index that names
            other tensors than the files hold, or one name for two different tensors.
    """
    for single in (SAFETENSORS, PICKLE) if pickles else (SAFETENSORS,):
        index = folder / f"{single}.index.json"
        stem, suffix = single.split(".")
        files = sorted(path for path in folder.glob(f"{stem}*.{suffix}") if path.is_file())
        if (folder / single) in files:
            # As transformers has it: the whole file wins over shards that an earlier save left behind.
            return _read(folder / single)
        if index.is_file():
            return _indexed(index)
        if files:
            _complete(folder, files)
            return _merged(files)
    expected = f"{SAFETENSORS} nor {PICKLE}, whole or in shards" if pickles else f"{SAFETENSORS}, whole or in shards"
    raise WeightsError(f"{folder} has {'neither' if pickles else 'no'} {expected}")


def weights_fault(folder: Path) -> str | None:
    """What is wrong with the files of weights in ``folder``, pickles among them, by their names, indices and ends: told
    without reading their tensors. None if nothing is seen."""
    try:
        for single in (SAFETENSORS, PICKLE):
            index = folder / f"{single}.index.json"
            stem, suffix = single.split(".")
            files = sorted(folder.glob(f"{stem}*.{suffix}"))
            if (folder / single) in files:
                files = [folder / single]
            elif index.is_file():
                files = sorted({index.parent / name for name in _shards(index).values()})
            elif files:
                _complete(folder, files)
            if files:
                return next((wrong for file in files if (wrong := _cut_off(file)) is not None), None)
    except WeightsError as error:
        return str(error)
    return f"{folder} has neither {SAFETENSORS} nor {PICKLE}, whole or in shards"


def _cut_off(file: Path) -> str | None:
    if (wrong := misread_file(file, is_text=False)) is not None:
        return f"{file} is {wrong}"
    try:
        if file.suffix == ".safetensors":
            # Its header says how long it is.
            with safe_open(file, framework="pt"):
                return None
        with file.open("rb") as opened:
            is_archive = opened.read(2) == b"PK"
        return f"{file} is damaged: its end is missing" if is_archive and not is_zipfile(file) else None
    except (SafetensorError, OSError) as error:
        return f"{file} is damaged: {error}"


def listed(problems: list[str]) -> str:
    """The first problems and the number of the others, as one line."""
    more = f" and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
    return f"{'; '.join(problems[:MAX_LISTED])}{more}"


def _indexed(index: Path) -> dict[str, Tensor]:
    shards = _shards(index)
    tensors = _merged([index.parent / name for name in sorted(set(shards.values()))])
    problems = [f"missing {name} in {shard}" for name, shard in shards.items() if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in shards]
    if problems:
        raise WeightsError(f"{index} does not fit its shards: {listed(problems)}")
    return tensors


def _shards(index: Path) -> dict[str, str]:
    """The file beside ``index`` of each tensor; all of them are there."""
    try:
        shards = dict(parse_json_text(index.read_text(encoding="utf-8"))["weight_map"])
        names = sorted(set(shards.values()))
        # A path inside an index could point anywhere.
        outside = [name for name in names if Path(name).name != name]
    except (ValueError, KeyError, TypeError) as error:
        wrong = why_unreadable(index, f"{type(error).__name__}: {error}")
        raise WeightsError(f"{index} is no index of shards: {wrong}") from None
    problems = [f"{name} is no plain file name" for name in outside]
    problems += [f"missing file {name}" for name in names if not (index.parent / name).is_file()]
    if problems:
        raise WeightsError(f"{index} does not fit its folder: {listed(problems)}")
    return shards


def _complete(folder: Path, files: list[Path]) -> None:
    numbered = [match for file in files if (match := SHARD.search(file.stem))]
    if not numbered:
        return
    totals = {int(match[2]) for match in numbered}
    if len(totals) > 1:
        raise WeightsError(f"{folder} mixes shards of models in {' and '.join(map(str, sorted(totals)))} files")
    absent = sorted(set(range(1, totals.pop() + 1)) - {int(match[1]) for match in numbered})
    if absent:
        raise WeightsError(
            f"{folder} lacks shard{'s' if len(absent) > 1 else ''} {', '.join(map(str, absent))} of {numbered[0][2]}"
        )


def _merged(files: list[Path]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in _read(file).items():
            if name in tensors and not torch.equal(tensors[name], tensor):
                raise WeightsError(f"{file} holds another {name} than a shard before it")
            tensors[name] = tensor
    return tensors


def _read(file: Path) -> dict[str, Tensor]:
    if (pointer := misread_file(file, is_text=False)) is not None:
        # Of a pickle torch would say that it carries code.
        raise WeightsError(f"{file} is {pointer}")
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{file} is damaged: {error}") from None
    try:
        loaded: Any = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{file} carries more than tensors and is not loaded: {error}") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{file} is damaged: {error}") from None
    if not isinstance(loaded, dict):
        raise WeightsError(f"{file} holds a {type(loaded).__name__}, not tensors by name")
    others = [f"{name} is a {type(value).__name__}" for name, value in loaded.items() if not isinstance(value, Tensor)]
    if others:
        raise WeightsError(f"{file} holds more than tensors: {listed(others)}")
    return {str(name): tensor for name, tensor in loaded.items()}
