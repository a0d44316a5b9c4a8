"""What heads and networks of one's own must keep to, and errors that say which file does not.

Faults that a torch error would tell somewhere else are told here by file and class, with what was found and what is
asked for. An error inside one's own code keeps its traceback, and is told with the line that raised it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from calm_bench.errors import CalmBenchError
from calm_bench.own_code import own_line
from calm_bench.problems import ConfigurationError
from calm_bench.source_digest import own_file

Made = TypeVar("Made", bound=nn.Module)
ASKED_OF_LOSS = "a scalar tensor and a dictionary of scalars to be logged, as in: return loss, {}"


class BrokenContract(ConfigurationError, TypeError):
    """Code of one's own lacks a part that its base class asks for, or gives something else than it says."""


def place(target: str) -> str:
    """``target`` (``module:NAME``) with the file of its module, for messages."""
    file = getattr(sys.modules.get(target.partition(":")[0]), "__file__", None)
    return target if file is None else f"{target} in {file}"


def make(target: str, own: type[Made], arguments: Mapping[str, Any], options: Mapping[str, Any]) -> Made:
    """``own(*arguments.values(), **options)``, whose own errors pass.

    Args:
        arguments: by the name that messages give them.

    Raises:
        BrokenContract: a method is missing, the arguments do not fit, or ``super().__init__()`` was not called.
    """
    if missing := sorted(getattr(own, "__abstractmethods__", ())):
        signatures = " and ".join(_signature(name, getattr(own, name)) for name in missing)
        raise BrokenContract(f"{place(target)} must have the method {signatures}")
    try:
        inspect.signature(own).bind(*arguments.values(), **options)
    except TypeError as error:
        given = ", ".join([*arguments, *(f"{name}=..." for name in options)])
        raise BrokenContract(
            f"{place(target)} is built as {own.__name__}({given}), and its __init__ does not take that: {error}"
        ) from error
    unbegun = f"{place(target)}: its __init__ must begin with super().__init__()"
    try:
        made = own(*arguments.values(), **options)
    except AttributeError as error:
        if "before Module.__init__() call" not in str(error):
            raise
        raise BrokenContract(unbegun) from error
    try:
        next(made.parameters(), None)
    except AttributeError as error:
        raise BrokenContract(unbegun) from error
    return made


def checked_loss(target: str, found: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """``found`` as it is, if it is what ``loss`` gives; looks at kinds and shapes, not at numbers.

    Raises:
        BrokenContract: it is something else; says what.
    """
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise BrokenContract(f"{place(target)}: loss gives {described(found)} instead of {ASKED_OF_LOSS}")
    loss, terms = found
    if not isinstance(loss, Tensor) or loss.shape != ():
        raise BrokenContract(
            f"{place(target)}: loss gives {described(loss)} as its first value instead of {ASKED_OF_LOSS}"
        )
    if not isinstance(terms, Mapping):
        raise BrokenContract(
            f"{place(target)}: loss gives {described(terms)} as its second value instead of {ASKED_OF_LOSS}"
        )
    for name, term in terms.items():
        if term.shape != () if isinstance(term, Tensor) else not hasattr(term, "__float__"):
            raise BrokenContract(
                f"{place(target)}: the term {name!r} of loss is {described(term)}, and only scalars are logged: give "
                "its mean"
            )
    return cast(tuple[Tensor, dict[str, Tensor]], found)


def learnable_loss(target: str, found: Any) -> Tensor:
    """The scalar of ``found``, which ``loss`` gave where gradients are taken.

    Raises:
        BrokenContract: as :func:`checked_loss`; also a loss of which nothing can be learned.
    """
    loss, _ = checked_loss(target, found)
    if not loss.requires_grad:
        raise BrokenContract(
            f"{place(target)}: loss gives a number without a gradient: compute it in floating point from parameters "
            "or inputs, and detach only what is logged"
        )
    return loss


def described(value: Any) -> str:
    """What ``value`` is, in words: ``a tensor of shape [3]``, ``a tuple of 3``, ``a float``, ``None``."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a value of the kind {type(value).__name__}"


def _signature(name: str, method: Callable[..., Any]) -> str:
    """As one writes it, without types: ``sample(self, hidden, num_samples, generator=None)``."""
    parameters = inspect.signature(method).parameters.values()
    return f"{name}({', '.join(str(one.replace(annotation=one.empty)) for one in parameters)})"


@contextmanager
def telling(target: str, what: str) -> Iterator[None]:
    """Errors of one's own code inside are told with its line; they stay the cause.

    Args:
        what: is tried, such as ``loss``.

    Raises:
        ConfigurationError: an error that is none of this project's.
    """
    try:
        yield
    except CalmBenchError:
        raise
    except Exception as error:  # the code is anybody's
        file = own_file(target.partition(":")[0])
        line = None if file is None else own_line(error, file)
        where = place(target) if line is None else f"{target} in {line}"
        raise ConfigurationError(f"{where}: {what} raises {type(error).__name__}: {error}") from error
