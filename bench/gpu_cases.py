"""The cases of :mod:`bench.gpu` one after the other, in a process that one of them may take with it.

An illegal access or a failed assertion on a GPU leaves a process that can compute nothing more there, and a kernel may
hang. So each case is told as it begins and as it ends, in a line of JSON to who started this process, which then starts
another one for those that are left.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence

import torch

from bench.gpu_checks import checks, compiled_checks
from bench.gpu_device import Case, Device, Row
from bench.gpu_rates import checkpoints, generation, machine, more_steps, scoring, steps, validation
from calm_bench.devices import set_tf32

SECTIONS: dict[str, Callable[[Device, float | None], list[Case]]] = {
    "machine": machine,
    "checks": checks,
    "steps": steps,
    "validation": validation,
    "scoring": scoring,
    "generation": generation,
    "checkpoints": checkpoints,
    "compiled": compiled_checks,
    "more": more_steps,
}
"""What there may be no time for comes last."""
DEVICE_LOST = 3
"""Exit code of a process whose device computes nothing more."""


def run(name: str, work: Callable[[], Row], device: Device) -> Row:
    """The row of one case, or its error; the device and what is set in this process are left as they were."""
    begun = time.perf_counter()
    try:
        found = {"": name, **work()}
        device.synchronize()
    except Exception as error:
        traceback.print_exc()
        first_line = next(iter(str(error).splitlines()), "")
        found = {"": name, "error": f"{type(error).__name__}: {first_line}"[:200]}
    torch.compiler.reset()
    set_tf32(device.name, False)
    gc.collect()
    return found | {"took, s": round(time.perf_counter() - begun, 1)}


def is_usable(device: Device) -> bool:
    """Whether the device computes anything more in this process; its memory that nothing is in is let go of."""
    try:
        if device.is_gpu:
            torch.cuda.empty_cache()
        return float(torch.ones((), device=device.name)) == 1
    except RuntimeError:
        return False


def listed(device: Device, sections: Sequence[str], peak: float | None) -> list[tuple[str, Case]]:
    """Section and case of all that is to be done."""
    return [(section, case) for section in sections for case in SECTIONS[section](device, peak)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", required=True)
    parser.add_argument("--only", required=True)
    parser.add_argument("--peak", type=float)
    parser.add_argument("--seconds", type=float, required=True, help="nothing is begun after so long")
    parser.add_argument("--done", type=int, required=True, help="so many cases are left out: they were told of before")
    parser.add_argument("--tell", type=int, required=True, help="file descriptor for what is told")
    given = parser.parse_args()
    device, begun = Device(given.device), time.perf_counter()
    torch.set_num_threads(torch.get_num_threads() if device.is_gpu else 1)
    with os.fdopen(given.tell, "w") as told:

        def tell(what: Row) -> None:
            told.write(json.dumps(what, default=str) + "\n")
            told.flush()

        tell({"device": device.model})
        for section, (name, work) in listed(device, given.only.split(","), given.peak)[given.done :]:
            tell({"section": section, "begins": name})
            if time.perf_counter() - begun >= given.seconds:
                tell({"row": {"": name, "error": "left out: the time was over"}})
                continue
            tell({"row": run(name, work, device)})
            if not is_usable(device):
                sys.exit(DEVICE_LOST)
        tell({"all": True})


if __name__ == "__main__":
    main()
