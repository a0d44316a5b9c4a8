"""Proxies of the surroundings, which know nothing of what listens on this machine alone.

Behind a proxy (``http_proxy`` and the like, without ``no_proxy``) programs would ask it for what listens on 127.0.0.1
too, and get what is there on the proxy's own machine, or nothing.
"""

from __future__ import annotations

import os

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EXCEPTIONS = ("no_proxy", "NO_PROXY")
"""What is asked without a proxy, by comma; most programs read the first before the second, some one of them only."""


def settle_proxies() -> None:
    """Let this process, and those that it starts, reach this machine without the proxies that are set, if any are."""
    if not any(value and _names_proxy(name) for name, value in os.environ.items()):
        return
    given = {name: os.environ.get(name, "") for name in EXCEPTIONS}
    for name in EXCEPTIONS:
        known = [part.strip() for part in (given[name] or max(given.values())).split(",") if part.strip()]
        if "*" not in known:
            os.environ[name] = ",".join([*known, *(host for host in LOOPBACK if host not in known)])


def _names_proxy(variable: str) -> bool:
    return variable.lower().endswith("_proxy") and variable not in EXCEPTIONS
