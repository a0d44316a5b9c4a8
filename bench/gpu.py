"""Everything that only a GPU can tell, in a quarter of an hour: is it right, how fast is it, what does it take.

    python -m bench.gpu                       # on one GPU, with models of the paper's sizes
    python -m bench.gpu --device cpu          # the same lines on tiny models, to see that they run
    python -m bench.gpu --only checks,steps   # some of the sections
    python -m bench.gpu --peak 312e12         # a GPU that is not in the list of bench.gpu_rates, for its MFU

Prints tables in Markdown as they get done, and keeps all of it in ``gpu.json`` and ``gpu.md`` (``--out``), which are
whole after every line: what was found stays where the time runs out, a part fails, hangs or takes its process with it.
Ends with 1 where a check does not hold or something failed.

Besides torch it needs numpy, pydantic, safetensors and pyarrow, and a C compiler for what is compiled.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bench.gpu_cases import DEVICE_LOST, SECTIONS
from bench.gpu_device import Row

CASES = ("-m", "bench.gpu_cases")
"""What Python runs to do the cases."""
MINUTES = 14.0
SILENCE_S = 240.0
"""After so long without an answer a case has hung; compiling all of the largest takes less."""


def markdown(section: str, rows: list[Row]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"## {section}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(cell(row.get(name)) for name in columns)} |" for row in rows]
    return "\n".join(lines) + "\n"


def cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass
class Found:
    """All rows so far, and the files that hold them."""

    folder: Path
    device: str = ""
    begun: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M"))
    sections: dict[str, list[Row]] = field(default_factory=dict)

    def add(self, section: str, row: Row) -> None:
        if section not in self.sections:
            self.show_last()
        self.sections.setdefault(section, []).append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
        kept = {"device": self.device, "torch": torch.__version__, "begun": self.begun, "sections": self.sections}
        (self.folder / "gpu.json").write_text(json.dumps(kept, indent=1) + "\n")
        heading = f"{self.device}, torch {torch.__version__}, {self.begun}\n\n"
        (self.folder / "gpu.md").write_text(heading + "\n".join(markdown(*each) for each in self.sections.items()))

    def show_last(self) -> None:
        """Print the section that was added to last."""
        for each in list(self.sections.items())[-1:]:
            print(markdown(*each), flush=True)

    @property
    def rows(self) -> list[Row]:
        return [row for each in self.sections.values() for row in each]


class Worker:
    """The process that does the cases, all but the first ``done``."""

    def __init__(self, given: argparse.Namespace, seconds: float, done: int) -> None:
        reading, writing = os.pipe()
        command = [sys.executable, *CASES, "--device", given.device, "--only", given.only]
        command += ["--seconds", str(seconds), "--done", str(done), "--tell", str(writing)]
        command += [] if given.peak is None else ["--peak", str(given.peak)]
        self._process = subprocess.Popen(command, pass_fds=[writing])
        os.close(writing)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._is_silent = False
        threading.Thread(target=self._read, args=(reading,), daemon=True).start()

    def _read(self, reading: int) -> None:
        with os.fdopen(reading) as told:
            for line in told:
                self._lines.put(line)
        self._lines.put(None)

    def told(self, silence_s: float) -> Iterator[Row]:
        """What it tells, until it ends or tells nothing for so long."""
        try:
            while (line := self._lines.get(timeout=silence_s)) is not None:
                yield json.loads(line)
        except queue.Empty:
            self._is_silent = True

    def end(self) -> tuple[int, str]:
        """End it; its exit code, and what it was ended by."""
        with suppress(subprocess.TimeoutExpired):
            # After its last word it has nothing to do but to end.
            if not self._is_silent:
                self._process.wait(timeout=10)
        self._process.kill()
        code = self._process.wait()
        if self._is_silent:
            return code, "it gave no answer, and was ended"
        return code, f"its process was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with {code}"


def measure(given: argparse.Namespace, found: Found) -> None:
    """Do all cases, in as many processes as it takes."""
    begun, done = time.perf_counter(), 0
    while True:
        worker = Worker(given, max(0.0, 60 * given.minutes - (time.perf_counter() - begun)), done)
        section, name, is_all = "", None, False
        for told in worker.told(given.silence):
            found.device = told.get("device", found.device)
            is_all = "all" in told
            if "begins" in told:
                section, name = told["section"], told["begins"]
            elif "row" in told:
                found.add(section, told["row"])
                done, name = done + 1, None
        code, ended = worker.end()
        if is_all:
            return
        if name is not None:
            found.add(section, {"": name, "error": ended})
            done += 1
        elif code != DEVICE_LOST:
            found.add(section or "machine", {"": "nothing more was begun", "error": ended})
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to rehearse")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="nothing is begun after so long")
    parser.add_argument("--silence", type=float, default=SILENCE_S, help="seconds after which a case has hung")
    parser.add_argument("--peak", type=float, help="FLOPs a second of the GPU, dense bf16")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of gpu.json and gpu.md")
    given = parser.parse_args()
    if unknown := set(given.only.split(",")) - SECTIONS.keys():
        parser.error(f"there is no section {', '.join(sorted(unknown))}: there are {', '.join(SECTIONS)}")
    if given.device != "cpu" and not torch.cuda.is_available():
        sys.exit("There is no GPU here; --device cpu rehearses what would be measured.")
    given.out.mkdir(parents=True, exist_ok=True)
    found, begun = Found(given.out), time.perf_counter()
    measure(given, found)
    found.show_last()
    failed = [row[""] for row in found.rows if "error" in row or row.get("holds") is False]
    print(f"{len(found.rows)} rows in {time.perf_counter() - begun:.0f} s; failed: {', '.join(failed) or 'none'}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
