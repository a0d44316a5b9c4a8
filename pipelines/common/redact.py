"""Addresses and messages without the passwords in them."""

from __future__ import annotations

import os
import re

# Lengths are bounded, since a message may hold a text of the user's: without, time grows with the square of its length.
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,40}://"
_USER_INFORMATION = re.compile(rf"(?P<scheme>{_SCHEME})[^/\s'\"]+@")
_OF_DATABASE = re.compile(r"(?P<scheme>(?:postgres|mysql|mariadb|mssql|oracle)[A-Za-z0-9+]{0,40}://)[^\s'\"]+@")
"""SQLAlchemy takes a password with a slash in it, which elsewhere would end the host."""
_PASSWORD_WITH_SLASH = re.compile(rf"(?P<scheme>{_SCHEME})[^/\s'\"@:]+:(?!\d+(?:/|\s|$))[^\s'\"@]+@")
"""As the secret keys of object stores may be, where somebody has written them into an address; no port."""
_SECRET_PARAMETER = re.compile(
    r"(?P<name>[?&;][^=&;\s]{0,100}(?:password|passwd|pwd|token|secret|key|signature)[^=&;\s]{0,100}=)[^&;\s'\"]+",
    re.IGNORECASE,
)

_SECRET_VARIABLE = re.compile(r"(?:TOKEN|SECRET|PASSWORD|PASSWD|PGPASSWORD|ACCESS_KEY|API_KEY)$")
SHORTEST_SECRET = 16
"""Characters; shorter values of such variables may be ordinary words."""


def redact(text: str) -> str:
    """``text`` with ``***`` for the user and password, and for secret-looking query parameters, of every URI in it.

    So are the values of environment variables whose names say that they are secret, such as ``HF_TOKEN``.
    """
    for pattern in (_OF_DATABASE, _PASSWORD_WITH_SLASH, _USER_INFORMATION):
        text = pattern.sub(r"\g<scheme>***@", text)
    text = _SECRET_PARAMETER.sub(r"\g<name>***", text)
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and _SECRET_VARIABLE.search(name):
            text = text.replace(value, "***")
    return text
