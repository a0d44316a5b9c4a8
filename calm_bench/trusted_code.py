"""Code that configurations name (``module:NAME``), and which of it may be imported: what the user named, nothing else.

A configuration may come from a file that somebody else wrote, such as a stage or a study in a store. What its names
stand for is imported, even to be priced, only once the user named the same: in a study that was asked for, in a class
that is built, or in the environment variable ``CALM_BENCH_TRUSTED_HEADS``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from calm_bench.errors import UsageError

TRUSTED_HEADS = "CALM_BENCH_TRUSTED_HEADS"
"""Environment variable: ``module:NAME`` of trusted heads and families, separated by commas."""
_KEY = "target"
_named: set[str] = set()


class UntrustedCode(UsageError, ValueError):
    """A configuration names code that nobody said may run; the message says how to say so."""


def trust_code(*targets: str) -> None:
    """Let this process import what the user named: ``module:NAME`` each."""
    _named.update(targets)


def trusted_by_environment() -> set[str]:
    """What ``CALM_BENCH_TRUSTED_HEADS`` lists."""
    return {target for target in os.environ.get(TRUSTED_HEADS, "").split(",") if target}


def check_trusted(target: str) -> None:
    """
    Raises:
        UntrustedCode: neither this process nor the environment was told to trust ``target``.
    """
    if target not in _named | trusted_by_environment():
        raise UntrustedCode(
            f"a configuration names {target!r}, which would be imported and run: "
            f"if you trust it, set {TRUSTED_HEADS}={target}"
        )


def targets_in(settings: Any) -> Iterator[str]:
    """Every ``module:NAME`` that settings of an experiment or a study give to a key ``target``, at any depth: as a
    section's field, behind a dotted path, and among the values of a search parameter of such a path."""
    if isinstance(settings, Mapping):
        if _is_target(settings.get("name")):
            yield from (value for value in settings.get("values") or () if isinstance(value, str))
        for key, value in settings.items():
            if _is_target(key) and isinstance(value, str):
                yield value
            else:
                yield from targets_in(value)
    elif isinstance(settings, Sequence) and not isinstance(settings, str | bytes):
        for value in settings:
            yield from targets_in(value)


def _is_target(path: Any) -> bool:
    return isinstance(path, str) and path.rpartition(".")[2] == _KEY
