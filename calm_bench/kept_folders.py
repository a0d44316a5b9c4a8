"""Folders in which work goes on, and which nobody makes again once they have gone.

Whoever writes makes the folders that are missing on the way. Of a store that somebody moves while a study runs, that
would make a husk at the old place, which the next command takes for the store.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from calm_bench.errors import RunError
from calm_bench.places import making

DELETED = " (deleted)"
"""What Linux writes behind the name of an open folder that has been removed."""
MOVING_S = 1.0


class FolderGone(RunError, OSError):
    """A folder was moved or removed while work went on in it; says where it is now, where the system tells."""

    input_explains = False


class _Kept:
    """A folder that must stay, from the moment at which it is first seen.

    Args:
        sign: something in it by which it is known: at the place of what was moved there may be another folder by now.
        protocol: with which its address begins, where that is no plain path.
    """

    def __init__(self, folder: Path, sign: Path, protocol: str) -> None:
        self.folder = folder
        self._protocol = protocol
        self._sign = sign
        self.was_seen = False
        self.users = 0
        """How many blocks keep it."""
        self._descriptor: int | None = None

    def is_gone(self) -> bool:
        try:
            self._sign.stat()
        except (FileNotFoundError, NotADirectoryError):
            return self.was_seen
        except OSError:
            # A disk that does not answer may do so again.
            return False
        if not self.was_seen:
            self.was_seen = True
            self._open()
        return False

    def error(self) -> FolderGone:
        now = self._place_now()
        if now is not None and now.endswith(DELETED):
            return FolderGone(
                f"{self.folder} has been removed while work went on in it, with what was saved there; it is not made "
                "again by this command, and the same one begins anew"
            )
        gone, kept = "while work went on in it", "What was saved went with it, and nothing is written to the old place"
        if now is None:
            return FolderGone(
                f"{self.folder} has been moved, removed or unmounted {gone}. {kept}: with the new one (--store PLACE, "
                "in Python store=), or once it is back, the same command goes on"
            )
        place = shlex.join(["--store", f"{self._protocol}{now}"])
        return FolderGone(
            f"{self.folder} has been moved to {now} {gone}. {kept}: with the new one ({place}, in Python store=) "
            "the same command goes on"
        )

    def moved_to(self) -> Path | None:
        """Where it is now, if the system tells that it was moved."""
        now = self._place_now()
        return None if now is None or now.endswith(DELETED) else Path(now)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _open(self) -> None:
        """Linux tells of an open folder where it is, whatever becomes of its name."""
        path_only = getattr(os, "O_PATH", None)
        if path_only is not None:
            with suppress(OSError):
                self._descriptor = os.open(self.folder, path_only | os.O_DIRECTORY)

    def _place_now(self) -> str | None:
        """Where the system says that it is, with :data:`DELETED` behind that where it is no more; None if unknown."""
        if self._descriptor is None:
            return None
        with suppress(OSError):
            now = os.readlink(f"/proc/self/fd/{self._descriptor}")
            if now.endswith(DELETED) and not os.path.exists(now):
                return now
            # Of a disk that is no longer there the name is told as if it were.
            if os.path.samestat(os.stat(now), os.fstat(self._descriptor)) and now != str(self.folder):
                return now
        return None


_kept: dict[Path, _Kept] = {}
_lasting: list[ExitStack] = []


@contextmanager
def keeping(folder: Path, sign: str = ".", protocol: str = "") -> Iterator[None]:
    """Inside the block ``folder``, once it is there, must stay: nothing in it is made again after it has gone.

    Args:
        sign: the name of something in ``folder`` by which it is known.
        protocol: such as ``file://``, where the folder is named by an address.

    Raises:
        FolderGone: the block failed and the folder is gone, whatever the error was that came of it.
    """
    kept = _kept.get(folder)
    if kept is None or not kept.users:
        kept = _kept[folder] = _Kept(folder, folder / sign, protocol)
    kept.users += 1
    try:
        kept.is_gone()
        yield
    except Exception as error:
        if isinstance(error, FolderGone) or not kept.is_gone():
            raise
        raise kept.error() from error
    finally:
        kept.users -= 1
        if not kept.users:
            # What has gone stays so for threads that still write, until somebody begins anew in it.
            if not kept.is_gone():
                del _kept[folder]
            kept.close()


@contextmanager
def keeping_opened() -> Iterator[None]:
    """Inside the block, as that of a whole command, each folder stays kept that :func:`opened` names."""
    with ExitStack() as stack:
        _lasting.append(stack)
        try:
            yield
        finally:
            _lasting.remove(stack)


def opened(folder: Path, sign: str, protocol: str = "") -> None:
    """Note that work in ``folder`` begins: as :func:`keeping`, to the end of the command; elsewhere nothing."""
    if _lasting:
        _lasting[-1].enter_context(keeping(folder, sign, protocol))


def is_gone(folder: Path) -> bool:
    """Whether ``folder`` is one that is kept and has gone."""
    kept = _kept.get(folder)
    return kept is not None and kept.is_gone()


def place_now(path: Path) -> Path:
    """Where ``path`` is to be found: elsewhere if it is in a kept folder that was moved and the system tells where to.

    For what a process takes back that it has left there: new things go nowhere but to the place that was asked for.
    """
    for place, kept in _kept.copy().items():
        if path.is_relative_to(place) and kept.is_gone() and (moved := kept.moved_to()) is not None:
            return moved / path.relative_to(place)
    return path


def check_kept(folder: Path) -> None:
    """
    Raises:
        FolderGone: ``folder`` is one that is kept and has gone.
    """
    kept = _kept.get(folder)
    if kept is None or not kept.is_gone():
        return
    # It may be replaced by a link to its new place just now.
    time.sleep(MOVING_S)
    if kept.is_gone():
        raise kept.error()


def make_folder(folder: Path) -> None:
    """Make ``folder`` with those above it, if they are missing; but none that is kept and has gone.

    Raises:
        OSError: it cannot be made; names what is in the way.
        FolderGone: it would be in one of these.
    """
    if folder.is_dir():
        return
    kept = next((kept for place, kept in _kept.copy().items() if folder.is_relative_to(place)), None)
    if kept is None or not (kept.is_gone() or kept.was_seen):
        with making(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return
    if kept.is_gone():
        raise kept.error()
    try:
        for below in reversed([folder, *folder.parents]):
            if below.is_relative_to(kept.folder) and below != kept.folder:
                below.mkdir(exist_ok=True)
    except FileNotFoundError:
        raise kept.error() from None
