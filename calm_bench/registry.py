"""Named plug-ins, imported only when asked for."""

from __future__ import annotations

import difflib
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from calm_bench.errors import UsageError
from calm_bench.own_code import import_own
from calm_bench.source_digest import code_digest

T = TypeVar("T")


class UnknownName(UsageError, ValueError):
    """A name that no plug-in has; the message lists the nearest ones."""


def did_you_mean(name: str, known: list[str]) -> str:
    """``; did you mean 'x'?`` for the nearest known name, else the list of all of them."""
    near = nearest(name, known)
    return f"; known: {', '.join(sorted(known))}" if near is None else f"; did you mean {near!r}?"


def nearest(name: str, known: list[str]) -> str | None:
    """The known name that is most like ``name``; None where none is like it."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.5)), None)


class Registry(Generic[T]):
    """Maps names to objects given directly or as ``module:attribute``.

    Other distributions add to it through the entry point group ``calm_bench.<group>``.

    Args:
        one: what one of them is called in messages.
    """

    def __init__(self, group: str, built_in: dict[str, str], *, one: str) -> None:
        self.group = group
        self.one = one
        self.built_in = tuple(built_in)
        """Names that come with the package, in the order in which they are given."""
        self._targets: dict[str, str | T] = dict(built_in)
        self._modules: dict[str, str] = {}
        """Where plug-ins are imported from, by their names."""
        self._entry_points_read = False

    def register(self, name: str, target: T | str) -> None:
        """Add ``target`` under ``name``.

        Raises:
            ValueError: the name is taken by something else.
        """
        if name in self._targets and self._targets[name] != target:
            raise ValueError(f"{self.one} {name!r} is already registered")
        self._targets[name] = target

    def names(self) -> list[str]:
        self._read_entry_points()
        return sorted(self._targets)

    def get(self, name: str) -> T:
        """The plug-in called ``name``, imported now.

        Raises:
            UnknownName: there is none; names the nearest.
        """
        self._read_entry_points()
        try:
            target = self._targets[name]
        except KeyError:
            raise UnknownName(f"unknown {self.one} {name!r}{did_you_mean(name, self.names())}") from None
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            self._modules[name] = module
            loaded: T = getattr(import_own(module), attribute)
            self._targets[name] = loaded
            return loaded
        return target

    def code_digest(self, name: str) -> str | None:
        """The content of the code of a plug-in that does not ship here; ``None`` of those that do.

        Raises:
            UnknownName: there is none of that name.
        """
        self._read_entry_points()
        if name not in self._targets:
            self.get(name)
        module = self._modules.get(name)
        if module is None:
            target = self._targets[name]
            written = target.partition(":")[0] if isinstance(target, str) else getattr(target, "__module__", None)
            module = self._modules[name] = written or type(target).__module__
        return code_digest(module)

    def _read_entry_points(self) -> None:
        if not self._entry_points_read:
            self._entry_points_read = True
            for point in entry_points(group=f"calm_bench.{self.group}"):
                self._targets.setdefault(point.name, point.value)
