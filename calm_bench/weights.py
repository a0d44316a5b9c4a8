"""A model folder: ``config.json`` that says what it is, ``model.safetensors`` that holds its tensors.

safetensors cannot carry code, so loading a folder from anywhere runs nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from calm_bench.atomic import write_bytes, write_with

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
MAX_LISTED = 8


class WeightsError(ValueError):
    """A folder does not hold the model that was asked for; the message lists what differs."""


def save_weights(model: torch.nn.Module, folder: Path, description: dict[str, Any]) -> None:
    """Write ``model``'s tensors and ``description`` into ``folder``, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_with(folder / WEIGHTS_FILE, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    write_bytes(folder / CONFIG_FILE, json.dumps(description, indent=2, sort_keys=True).encode())


def read_description(folder: Path, *model_types: str) -> dict[str, Any]:
    """The ``config.json`` of a model folder whose ``model_type`` is one of ``model_types``.

    Raises:
        WeightsError: no such file, no JSON, or another kind of model.
    """
    path = folder / CONFIG_FILE
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{folder} is not a model folder: it has no {CONFIG_FILE}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} is not JSON: {error}") from None
    found = description.get("model_type") if isinstance(description, dict) else None
    if found not in model_types:
        raise WeightsError(f"{path} has model_type {found!r}, expected {' or '.join(model_types)}")
    return dict(description)


def load_weights(model: torch.nn.Module, folder: Path) -> None:
    """Fill ``model`` from ``folder``, completely or not at all.

    Raises:
        WeightsError: the file is missing or damaged, or keys or shapes differ; all differences are counted and the
            first ones named.
    """
    path = folder / WEIGHTS_FILE
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise WeightsError(f"{folder} has no {WEIGHTS_FILE}") from None
    except SafetensorError as error:
        raise WeightsError(f"{path} is damaged: {error}") from None
    fill(model, tensors, path)


def fill(model: torch.nn.Module, tensors: dict[str, torch.Tensor], source: Path) -> None:
    """Copy ``tensors`` into ``model``, which must have exactly these names and shapes.

    Raises:
        WeightsError: names ``source`` and the first differences.
    """
    expected = model.state_dict()
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in expected]
    problems += [
        f"{name} has shape {list(tensor.shape)}, expected {list(expected[name].shape)}"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if problems:
        more = f" and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
        raise WeightsError(f"{source} does not fit: {'; '.join(problems[:MAX_LISTED])}{more}")
    model.load_state_dict(tensors)
