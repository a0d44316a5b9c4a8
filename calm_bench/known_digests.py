"""Hashes of large files that some process of this user on this node has computed, for those that start after it.

Every worker of a training opens the same tokens at every start, every command asks for the identity of the same text,
and to hash a terabyte takes ten minutes of a CPU. A hash is remembered for the file as it was: device, inode, size and
both times of change, of which the system sets the later one itself. So a file that was replaced, cut or written into is
hashed again, and so is every file after the node's temporary folder was emptied, as it is when the node starts.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from io import BufferedRandom, BufferedReader

from calm_bench.caches import CacheError, own_temporary_folder
from calm_bench.fingerprint import SETTLED_S, file_version

FOLDER = "digests"
_LENGTH = 64


def known_digest(file: BufferedReader) -> str:
    """SHA-256 of the open ``file``, in hex: of the very file that can be read through it, whatever its name leads to.

    Of several processes that ask at once, one hashes and the others wait for it. Where nothing can be remembered, each
    hashes for itself.
    """
    seen = os.fstat(file.fileno())
    try:
        folder = own_temporary_folder() / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        with (folder / _name(seen)).open("a+b") as memo:
            fcntl.flock(memo, fcntl.LOCK_EX)
            return _remembered(memo) or _remember(memo, file, seen)
    except (OSError, CacheError):
        return _digest(file)


def _name(seen: os.stat_result) -> str:
    return "-".join(map(str, file_version(seen)))


def _remembered(memo: BufferedRandom) -> str | None:
    memo.seek(0)
    content = memo.read().decode("ascii", "replace")
    # A process that was killed while it wrote leaves less.
    return content if len(content) == _LENGTH else None


def _remember(memo: BufferedRandom, file: BufferedReader, seen: os.stat_result) -> str:
    is_settled = time.time() - max(seen.st_mtime, seen.st_ctime) > SETTLED_S
    found = _digest(file)
    if is_settled and _name(os.fstat(file.fileno())) == _name(seen):
        memo.truncate(0)
        memo.write(found.encode())
        memo.flush()
    return found


def _digest(file: BufferedReader) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()
