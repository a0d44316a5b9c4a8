"""The folders that hold a store, which are to stay where they are while work goes on in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from calm_bench.kept_folders import check_kept, keeping, opened
from pipelines.store.layout import STUDIES
from pipelines.store.store import Store

_LOCAL = "file://"


@contextmanager
def keeping_store(store: Store, sign: str = STUDIES) -> Iterator[None]:
    """As :func:`calm_bench.kept_folders.keeping`, of the folder of ``store`` on this machine and of the one that is its
    address.

    Args:
        sign: by which the first is known.
    """
    with ExitStack() as stack:
        stack.enter_context(keeping(store.root, sign))
        if (there := _address(store)) is not None:
            stack.enter_context(keeping(there, STUDIES, _LOCAL))
        yield


def opened_store(store: Store) -> None:
    """As :func:`keeping_store`, to the end of the command."""
    opened(store.root, STUDIES)
    if (there := _address(store)) is not None:
        opened(there, STUDIES, _LOCAL)


def check_store(store: Store) -> None:
    """
    Raises:
        FolderGone: ``store`` is kept, and somebody has moved or removed it.
    """
    for folder in filter(None, (store.root, _address(store))):
        check_kept(folder)


def _address(store: Store) -> Path | None:
    return Path(store.uri.removeprefix(_LOCAL)) if store.uri.startswith(_LOCAL) else None
