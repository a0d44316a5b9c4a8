"""A model folder: ``config.json`` that says what it is, ``model.safetensors`` that holds its tensors.

safetensors cannot carry code, so loading a folder from anywhere runs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from calm_bench.atomic import write_bytes, write_with
from calm_bench.file_signs import why_unreadable
from calm_bench.json_text import parse_json_text
from calm_bench.kept_folders import make_folder
from calm_bench.tensor_files import SAFETENSORS as WEIGHTS_FILE
from calm_bench.tensor_files import WeightsError, listed, read_tensors

__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "WeightsError",
    "fill",
    "load_weights",
    "read_description",
    "save_tensors",
    "save_weights",
]

CONFIG_FILE = "config.json"


def save_weights(model: torch.nn.Module, folder: str | Path, description: dict[str, Any]) -> None:
    """Write ``model``'s tensors and ``description`` into ``folder``, each file whole or not at all."""
    save_tensors({name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}, folder, description)


def save_tensors(state: Mapping[str, torch.Tensor], folder: str | Path, description: dict[str, Any]) -> None:
    """As :func:`save_weights`, from tensors on the CPU that are a model's whole state."""
    folder = Path(folder)
    make_folder(folder)
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    write_with(folder / WEIGHTS_FILE, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    write_bytes(folder / CONFIG_FILE, json.dumps(description, indent=2, sort_keys=True).encode())


def read_description(folder: str | Path, *model_types: str) -> dict[str, Any]:
    """The ``config.json`` of a model folder whose ``model_type`` is one of ``model_types``.

    Raises:
        WeightsError: no such file, no JSON, or another kind of model.
    """
    path = Path(folder) / CONFIG_FILE
    try:
        description = parse_json_text(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{folder} is not a model folder: it has no {CONFIG_FILE}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} is not JSON: {why_unreadable(path, error)}") from None
    found = description.get("model_type") if isinstance(description, dict) else None
    if found not in model_types:
        raise WeightsError(f"{path} has model_type {found!r}, expected {' or '.join(model_types)}")
    return dict(description)


def load_weights(model: torch.nn.Module, folder: str | Path) -> None:
    """Fill ``model`` from ``folder``, completely or not at all.

    Raises:
        WeightsError: a file is missing or damaged, or keys or shapes differ; all differences are counted and the
            first ones named.
    """
    folder = Path(folder)
    fill(model, read_tensors(folder), folder)


def fill(
    model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], source: Path, names: Mapping[str, str] | None = None
) -> None:
    """Copy ``tensors`` into ``model``, completely or not at all: they must have exactly its names and shapes.

    Args:
        source: where the tensors are from, for messages.
        names: what ``tensors`` calls the model's tensors; the model's tensors that are not in it are left alone.

    Raises:
        WeightsError: names ``source`` and the first differences, in the words of ``tensors``.
    """
    state = model.state_dict()
    names = {name: name for name in state} if names is None else names
    expected = {there: state[here] for here, there in names.items()}
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in expected]
    for name, wanted in expected.items():
        found = tensors.get(name, wanted)
        if found.shape != wanted.shape:
            problems.append(f"{name} has shape {list(found.shape)}, expected {list(wanted.shape)}")
        elif found.is_floating_point() != wanted.is_floating_point():
            problems.append(f"{name} is of type {found.dtype}, expected {wanted.dtype}")
    if problems:
        raise WeightsError(f"{source} does not fit: {listed(problems)}")
    model.load_state_dict({here: tensors[there] for here, there in names.items()}, strict=False)
