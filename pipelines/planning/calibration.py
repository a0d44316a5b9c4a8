"""What has been measured of this machine's speed, kept in the user's cache folder.

One JSON file, a section for each machine, number of processes and version of torch; nothing of it ever enters a
result. A damaged file counts as none.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from calm_bench.atomic import write_bytes
from calm_bench.caches import user_caches
from calm_bench.devices import available_cpus
from calm_bench.fingerprint import identity
from calm_bench.json_text import parse_json_text
from pipelines.planning.machines import Machine
from pipelines.store.file_lock import locked
from pipelines.study.workload import Speed, Workload

FORMAT = "calm-bench calibration"
VERSION = 1
IMPORT_S = 8.0
"""What a worker's import of torch and transformers takes where nothing has been measured, two workers at once."""
ALONE = 0.95
"""Time of a step while nothing else runs, of that while every core has a stage, where nothing has been measured."""


@dataclass(frozen=True)
class Measured:
    """One model's speed, and what tells how near another model is to it."""

    kind: str
    is_token: bool
    speed: Speed
    work: Speed
    """FLOPs of the same parts (:attr:`pipelines.study.workload.Workload.work`)."""

    @classmethod
    def of(cls, workload: Workload, speed: Speed) -> Measured:
        return cls(workload.kind, workload.is_token, speed, workload.work)

    def scaled_to(self, workload: Workload, assumed: Speed) -> Speed:
        """The speed of another model at the FLOPs per second that this one reached.

        Args:
            assumed: of the other model, for what a token model does in another way than a chunk model.
        """
        is_alike = self.is_token == workload.is_token
        found = {}
        for name, calls in vars(workload.calls).items():
            seconds, work = getattr(self.speed, name), getattr(self.work, name)
            if work and seconds and (is_alike or name in ("step", "validation_token")):
                found[name] = calls + getattr(workload.work, name) * max(seconds - calls, 0.2 * seconds) / work
            else:
                found[name] = getattr(assumed, name)
        return Speed(**found)


@dataclass(frozen=True)
class Calibration:
    """Measurements of one machine."""

    models: Mapping[str, Measured] = field(default_factory=dict)
    """By the identity of the workload, taken while as many stages ran as run at once in a study."""
    import_s: float = IMPORT_S
    alone: float = ALONE
    """Time of a step while nothing else ran, as a share of that with all processes busy."""
    busy: float = 1.0
    """How many times longer the last measurement took than it would have on an idle machine."""
    measured: str = ""
    """When, the last time; empty where nothing has been."""

    def has(self, workload: Workload) -> bool:
        return workload.identity in self.models


def cache_file() -> Path:
    """The file of all calibrations, in the user's folder for caches."""
    return user_caches() / "calm-bench" / "calibration.json"


def load_calibration(machine: Machine, path: Path | None = None) -> Calibration:
    """What is known of ``machine``; nothing measured where it is not this one."""
    if not machine.is_this:
        return Calibration()
    section = _read(path or cache_file()).get(machine_key(machine))
    try:
        return Calibration() if section is None else _parsed(section)
    except (KeyError, TypeError, ValueError, AttributeError):
        return Calibration()


def save_calibration(machine: Machine, found: Calibration, path: Path | None = None) -> Calibration:
    """Add ``found`` to what is known of ``machine`` and return all of it; a newer measurement replaces."""
    path = path or cache_file()
    with locked(path.with_name(f".{path.name}.lock")):
        machines = _read(path)
        known = load_calibration(machine, path)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        merged = Calibration({**known.models, **found.models}, found.import_s, found.alone, found.busy, now)
        machines[machine_key(machine)] = {
            "machine": machine_facts(machine),
            "import_s": merged.import_s,
            "alone": merged.alone,
            "busy": merged.busy,
            "measured": merged.measured,
            "models": {name: asdict(model) for name, model in merged.models.items()},
        }
        content = {"format": FORMAT, "version": VERSION, "machines": machines}
        write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    return merged


def machine_key(machine: Machine) -> str:
    """16 hex digits of all that a measurement depends on besides the model."""
    return identity(machine_facts(machine))


def machine_facts(machine: Machine) -> dict[str, Any]:
    """What a measurement depends on besides the model."""
    return {
        "host": platform.node(),
        "processor": _processor(),
        "device": machine.device if machine.device == "cpu" else machine.label,
        "cpus": available_cpus(),
        "stages_at_once": machine.parallelism,
        "python": platform.python_version(),
        "torch": _version("torch"),
        "transformers": _version("transformers"),
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        content = parse_json_text(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict) or (content.get("format"), content.get("version")) != (FORMAT, VERSION):
        return {}
    machines = content.get("machines")
    return machines if isinstance(machines, dict) else {}


def _parsed(section: Mapping[str, Any]) -> Calibration:
    models = {}
    for name, model in section["models"].items():
        speed, work = (Speed(**{k: float(v) for k, v in model[part].items()}) for part in ("speed", "work"))
        # How near another model is goes by the logarithm of a step's FLOPs.
        if min(speed.step, work.step) > 0:
            models[str(name)] = Measured(str(model["kind"]), bool(model["is_token"]), speed, work)
    alone = min(max(float(section["alone"]), 0.2), 1.0)
    import_s, busy = max(float(section["import_s"]), 0.1), max(float(section["busy"]), 1.0)
    return Calibration(models, import_s, alone, busy, str(section["measured"]))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "none"
