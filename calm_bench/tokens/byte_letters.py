"""The letters by which byte-level tokenizers write bytes (GPT-2's table)."""

from __future__ import annotations


def byte_letters() -> list[str]:
    """The letter of each byte, by byte: a printable one of Latin-1 stands for itself, the others follow U+0100."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
