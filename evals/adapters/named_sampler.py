"""A sampler of one's own by its name, ``module:NAME``: what ``calm-bench eval --trust-code`` scores."""

from __future__ import annotations

import re
from typing import Any

from calm_bench.overrides import ConfigurationError
from calm_bench.own_code import import_own
from calm_bench.registry import UnknownName, did_you_mean
from evals.samplers import Sampler

_NAME = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")
_CONTRACT = ("vocab_size", "chunk_size", "sample")


def is_code_name(name: str) -> bool:
    """Whether ``name`` is written as ``module:NAME``; imports nothing."""
    return _NAME.fullmatch(name) is not None


def open_named_sampler(target: str) -> Sampler:
    """The sampler that ``target`` stands for, a class or function that is called without arguments, or an object.

    Imports the module and so runs its code: call it only for what the user named and said to trust.

    Args:
        target: ``module:NAME``.

    Raises:
        UnknownName: there is no such module, or nothing of that name in it.
        ConfigurationError: it cannot be made without arguments, or lacks a part of :class:`evals.samplers.Sampler`.
    """
    module, _, attribute = target.partition(":")
    try:
        code = import_own(module)
    except ImportError as error:
        raise UnknownName(
            f"{target} cannot be imported: {error}; is its folder on the path? From the folder of {module}.py: "
            "PYTHONPATH=. calm-bench eval ..."
        ) from error
    if not hasattr(code, attribute):
        public = [name for name in vars(code) if not name.startswith("_")]
        raise UnknownName(f"there is no {attribute!r} in {module}{did_you_mean(attribute, public)}")
    found: Any = getattr(code, attribute)
    if isinstance(found, type) or not hasattr(found, "sample"):
        try:
            found = found()
        except Exception as error:  # the constructor is anybody's code
            raise ConfigurationError(
                f"{target}() cannot be made without arguments: {type(error).__name__}: {error}; name a function that "
                "makes it, or an object"
            ) from error
    if missing := [name for name in _CONTRACT if not hasattr(found, name)]:
        raise ConfigurationError(
            f"{target} is no sampler, it lacks {', '.join(missing)}: it has vocab_size, chunk_size (1 if it continues "
            "a text anywhere) and sample(contexts, num_samples, horizon, seeds), which gives token ids [C, S, H]"
        )
    sampler: Sampler = found
    return sampler
