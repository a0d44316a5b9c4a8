"""The servers that a private Ray starts: those without which no stage would run, and on loopback only.

Ray's own, all of them, take seconds more on two cores: each is a Python that imports Ray.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

_NEEDLESS = ("start_api_server", "start_monitor", "start_log_monitor")
"""Methods of Ray's node that start servers which nobody asks anything: the dashboard's, and those that would scale a
cluster and send logs to the driver."""

_COMMAND, _START = "_build_python_executable_command_memory_profileable", "start_raylet"
"""Functions of Ray's services by which its agents are started."""

_AGENT = """
import os, time
parent = os.getppid()
while os.getppid() == parent:
    time.sleep(0.5)
"""
"""Instead of an agent: the raylet ends where it has none."""

_NO_PORT = -1
"""What an agent tells that does not listen, as Ray's own does without the libraries of the dashboard."""
_UNUSED_PORT = 1
"""Where the agent for runtime environments would listen; who asked it all the same would be refused."""


@contextmanager
def fewest_servers(launched: Callable[[], None], with_environments: bool = False) -> Iterator[None]:
    """Inside the block, Ray starts no more than it needs.

    It has no arguments for that, so parts of it are replaced; where a version of it lacks one of these, it starts what
    it is used to.

    Args:
        launched: called when its processes run and make the rest of the way by themselves.
        with_environments: some workers are to have a runtime environment, as all of Ray Train's do.
    """
    from ray._private import ray_constants, services
    from ray._private.node import Node

    replacements: list[tuple[Any, str, Any]] = [
        # Loopback only, in a process that had imported Ray before the variable that says so was set.
        (ray_constants, "ENABLE_RAY_CLUSTER", False),
        *((Node, name, lambda *_, **__: None) for name in _NEEDLESS),
        *_without_agents(services, ray_constants, launched, with_environments),
    ]
    with ExitStack() as stack:
        for owner, name, value in replacements:
            if hasattr(owner, name):
                stack.enter_context(_replaced(owner, name, value))
        yield


def _without_agents(
    services: Any, constants: Any, launched: Callable[[], None], with_environments: bool
) -> list[tuple[Any, str, Any]]:
    """Replacements by which a node's two agents do not run.

    One is for metrics and the dashboard, which are not there, the other for runtime environments, where there are none.
    """
    try:
        from ray import _raylet

        # It is compiled, and described only in part.
        raylet: Any = _raylet
        own_command, own_start = getattr(services, _COMMAND), getattr(services, _START)
        agents = [constants.PROCESS_TYPE_DASHBOARD_AGENT]
        ports = {
            raylet.METRICS_AGENT_PORT_NAME: _NO_PORT,
            raylet.METRICS_EXPORT_PORT_NAME: _NO_PORT,
            raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME: _NO_PORT,
        }
        if not with_environments:
            agents.append(constants.PROCESS_TYPE_RUNTIME_ENV_AGENT)
            ports[raylet.RUNTIME_ENV_AGENT_PORT_NAME] = _UNUSED_PORT
        persist = raylet.persist_port
        signature = inspect.signature(own_start)
    except (AttributeError, ImportError):
        return []

    def command(component: str, *arguments: Any, **options: Any) -> Any:
        if component in agents:
            # Ray's own program and its arguments follow, and are not looked at.
            return [sys.executable, "-I", "-S", "-c", _AGENT]
        return own_command(component, *arguments, **options)

    def start(*arguments: Any, **options: Any) -> Any:
        told = signature.bind(*arguments, **options).arguments
        for name, port in ports.items():
            persist(told["session_dir"], told["node_id"], name, port)
        process = own_start(*arguments, **options)
        launched()
        return process

    return [(services, _COMMAND, command), (services, _START, start)]


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
