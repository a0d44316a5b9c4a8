"""How long a study takes to go on after each fault of the fault table, what it loses, and whether it ends the same.

    python -m bench.recovery [ROW ...] [--rounds 1] [--folder DIR]

Each row is played on a small real study by ``calm-bench run`` in processes of its own: with Ray, except where two
drivers share a store or files are damaged, which one process does alone (``--local``). The columns, in seconds:

recovery
    the two that follow together: from the fault until the stage it befell has logged its first new line of metrics.
noticed
    from the fault (the kill, the node's removal, the failed write) until the stage's lease is held again, for what
    goes on by itself. Where a person gives the same command: until the first command had ended, so that it could be.
resumed
    from the lease to that first new line: torch is imported where the process is new, the checkpoint is read, and
    steps are trained up to the next one that is logged (every fifth; an evaluation's every sixteenth position).
start-up
    of the same command, no part of recovery: from giving it until it holds the stage's lease. Ray starts in it.
lost
    steps that are trained a second time, and the seconds that they had taken; where a finished stage is made again,
    its seconds. Checkpoints are 50 steps apart, and the faults come half way between two.
same
    leaderboard (without times) and SHA-256 of all weights are those of the undisturbed study, and no lease and no
    half-written folder is left.

Of MLflow's server, recovery is from its first answer after its return until MLflow has all that was logged by then.
With several rounds the medians are printed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench.disturbances import ROWS, Row, Scene

HEADS = ("fault", "recovery", "noticed", "resumed", "start-up", "lost", "same", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"unset means all of {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keeps all stores; an undisturbed one there is used again")
    options = parser.parse_args()
    if unknown := sorted(set(options.rows) - set(ROWS)):
        parser.error(f"no row {', '.join(unknown)}: choose from {', '.join(ROWS)}")
    begun = time.monotonic()
    scene = Scene(options.folder or Path(tempfile.mkdtemp(prefix="recovery-")))
    found: dict[str, list[Row]] = {}
    for number in range(options.rounds):
        for name in options.rows or ROWS:
            for row in ROWS[name](scene):
                found.setdefault(row.fault, []).append(row)
                told = " | ".join(cells([row]))
                print(f"round {number + 1}, {time.monotonic() - begun:.0f} s: {told}", file=sys.stderr, flush=True)
    for line in (HEADS, ("---",) * len(HEADS), *(cells(rows) for rows in found.values())):
        print("|", " | ".join(line), "|")
    sys.exit(0 if all(row.equal for rows in found.values() for row in rows) else 1)


def cells(rows: list[Row]) -> tuple[str, ...]:
    """A line of the table: medians of the rounds of one row."""

    def median(name: str, digits: int = 1) -> str:
        values = [value for row in rows if (value := getattr(row.recovery, name)) is not None]
        return f"{statistics.median(values):.{digits}f}" if values else "-"

    return (
        rows[0].fault,
        *(median(name) for name in ("recovery_s", "noticed_s", "resumed_s", "start_up_s")),
        f"{median('lost_steps', 0)} steps, {median('lost_s')} s",
        "yes" if all(row.equal for row in rows) else "NO",
        "; ".join(row.remark for row in rows if row.remark),
    )


if __name__ == "__main__":
    main()
