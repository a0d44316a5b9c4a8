"""Everything that only a GPU can tell, in a quarter of an hour: is it right, how fast is it, what does it take.

    python -m bench.gpu                       # on one GPU, with models of the paper's sizes
    python -m bench.gpu --device cpu          # the same lines on tiny models, to see that they run
    python -m bench.gpu --only checks,steps   # some of the sections
    python -m bench.gpu --peak 312e12         # a GPU that is not in the list of bench.gpu_rates, for its MFU

Prints tables in Markdown as they get done, and keeps all of it in ``gpu.json`` and ``gpu.md`` (``--out``); what was
found stays where the time runs out, or a part fails. Ends with 1 where a check does not hold or something failed.

Besides torch it needs numpy, pydantic, safetensors and pyarrow, and a C compiler for what is compiled.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from bench.gpu_checks import checks, compiled_checks
from bench.gpu_device import Case, Device, Row
from bench.gpu_rates import checkpoints, generation, machine, more_steps, scoring, steps, validation

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
MINUTES = 14.0


def run(name: str, work: Callable[[], Row]) -> Row:
    """The row of one case, or its error; the device is left empty."""
    begun = time.perf_counter()
    try:
        found = {"": name, **work()}
    except Exception as error:
        traceback.print_exc()
        found = {"": name, "error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found | {"took, s": round(time.perf_counter() - begun, 1)}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to rehearse")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="nothing is begun after so long")
    parser.add_argument("--peak", type=float, help="FLOPs a second of the GPU, dense bf16")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of gpu.json and gpu.md")
    given = parser.parse_args()
    wanted = given.only.split(",")
    if unknown := set(wanted) - SECTIONS.keys():
        parser.error(f"there is no section {', '.join(sorted(unknown))}: there are {', '.join(SECTIONS)}")
    if given.device != "cpu" and not torch.cuda.is_available():
        sys.exit("There is no GPU here; --device cpu rehearses what would be measured.")
    torch.set_num_threads(1 if given.device == "cpu" else torch.get_num_threads())
    device, begun = Device(given.device), time.perf_counter()
    model = torch.cuda.get_device_name() if device.is_gpu else "CPU"
    found: dict[str, list[Row]] = {}
    kept = {"device": model, "torch": torch.__version__, "begun": time.strftime("%Y-%m-%d %H:%M"), "sections": found}
    given.out.mkdir(parents=True, exist_ok=True)
    for section in wanted:
        found[section] = []
        for name, work in SECTIONS[section](device, given.peak):
            if time.perf_counter() - begun > 60 * given.minutes:
                found[section].append({"": name, "error": "left out: the time was over"})
            else:
                found[section].append(run(name, work))
            print(json.dumps(found[section][-1], default=str), file=sys.stderr, flush=True)
            (given.out / "gpu.json").write_text(json.dumps(kept, indent=1, default=str) + "\n")
        print(markdown(section, found[section]), flush=True)
    heading = f"{model}, torch {torch.__version__}, {kept['begun']}\n\n"
    (given.out / "gpu.md").write_text(heading + "\n".join(markdown(*each) for each in found.items()))
    rows = [row for each in found.values() for row in each]
    failed = [row[""] for row in rows if "error" in row or row.get("holds") is False]
    print(f"{len(rows)} rows in {time.perf_counter() - begun:.0f} s; failed: {', '.join(failed) or 'none'}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
