"""What a file is instead of the text or data that it is taken for: told from its first bytes, with the way out."""

from __future__ import annotations

from pathlib import Path

HEAD_BYTES = 512
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
"""Byte order marks, the longer ones first."""
_PACKED = {
    b"\x1f\x8b": "gunzip < FILE > NEW",
    b"PK\x03\x04": "unzip -p FILE > NEW",
    b"\x28\xb5\x2f\xfd": "unzstd < FILE > NEW",
    b"\xfd7zXZ": "unxz < FILE > NEW",
    b"BZh": "bunzip2 < FILE > NEW",
}
"""First bytes of compressed files, and what unpacks them, whatever they are called."""
_PACKERS = {
    ".gz": ("gzip", b"\x1f\x8b"),
    ".zst": ("zstd", b"\x28\xb5\x2f\xfd"),
    ".xz": ("xz", b"\xfd7zXZ"),
    ".bz2": ("bzip2", b"BZh"),
}
"""Name and first bytes of what the end of a file's name promises."""
_NO_TEXT = bytes({*range(32)} - {*b"\t\n\r\f"})


def misread_as(head: bytes) -> str | None:
    """A phrase for what begins with ``head`` and is no UTF-8 text, such as a Git LFS pointer; None if nothing is wrong.

    UTF-16 without a byte order mark is told by its NUL bytes, every second one in Latin text.
    """
    if head and not head.strip(b"\0"):
        return "nothing but NUL bytes, as a full disk or a crash leaves a file: bring it again"
    if is_pointer(head):
        return "a Git LFS pointer and not the file itself: run `git lfs pull` where it was cloned"
    encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
    if encoding is None and len(head) >= 16:
        # Without the mark iconv must be told the order of the two bytes.
        orders = (("UTF-16BE", head[0::2]), ("UTF-16LE", head[1::2]))
        encoding = next((name for name, half in orders if half.count(0) > len(head) // 2 * 0.7), None)
    if encoding is None:
        return None
    return f"{encoding} text, which is read as UTF-8 here: convert it with `iconv -f {encoding} -t UTF-8 FILE > NEW`"


def is_pointer(head: bytes) -> bool:
    """Whether a file is what Git leaves in place of one that Git LFS holds."""
    return head.startswith(LFS_POINTER)


def packed_by(head: bytes) -> str | None:
    """The command that unpacks what begins with ``head``; None where it is not compressed."""
    return next((command for mark, command in _PACKED.items() if head.startswith(mark)), None)


def misnamed(name: str | Path, head: bytes) -> str | None:
    """A phrase for a file that is packed otherwise than the end of its ``name`` says, or not at all; None if it is as
    it is called, or damaged beyond telling.

    Args:
        head: its first bytes.
    """
    suffix = Path(name).suffix.lower()
    promised, mark = _PACKERS.get(suffix, (None, b""))
    found = next((end for end, (_, begins) in _PACKERS.items() if head.startswith(begins)), None)
    if not head or (promised is not None and head.startswith(mark)):
        return None
    if promised is None and found is None:
        command = packed_by(head)
        return None if command is None else f"compressed: unpack it first, with `{command}`"
    if found is not None and promised is None:
        return f"packed by {_PACKERS[found][0]}, which its name does not say: let it end in {suffix}{found}"
    if found is not None:
        return f"packed by {_PACKERS[found][0]} and not by {promised}: let its name end in {found}, not in {suffix}"
    if _is_text(head):
        return f"text that is not packed by {promised}, though its name ends in {suffix}: leave that ending out"
    return None


def has_old_line_ends(head: bytes) -> bool:
    """Whether what begins with ``head`` has lines that end in CR alone, as on Macs before 2001."""
    return b"\r" in head and b"\n" not in head


def _is_text(head: bytes) -> bool:
    """Whether ``head`` may begin a UTF-8 text; its last character may be cut."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.end < len(head) or error.reason != "unexpected end of data":
            return False
    return not any(byte in _NO_TEXT for byte in head)


def misread_file(file: Path, is_text: bool = True) -> str | None:
    """:func:`misread_as` of a file; one that holds no text can only be a pointer.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as opened:
        head = opened.read(HEAD_BYTES)
    return misread_as(head) if is_text or is_pointer(head) else None


def why_unreadable(file: Path, error: object, is_text: bool = True) -> str:
    """What ``file``, on which reading ended with ``error``, is instead of what it is taken for; else the error."""
    try:
        return misread_file(file, is_text) or str(error)
    except OSError:
        return str(error)


def not_utf8(text: bytes, error: UnicodeDecodeError) -> str:
    """What is wrong with ``text``, which ended its reading as UTF-8 with ``error``: the line, and the way out."""
    if (command := packed_by(text)) is not None:
        return f"compressed: unpack it first, with `{command}`"
    line = text.count(b"\n", 0, error.start) + 1
    return (
        f"no UTF-8 text in line {line} (byte 0x{text[error.start]:02x}): convert it, as with `iconv -f LATIN1 -t UTF-8 "
        "FILE > NEW` where it is Latin-1"
    )
