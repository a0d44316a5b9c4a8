"""Two models on the same positions."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from pipelines.app.commands.options import AsJson, Device, StorePath, console, say, single_threaded


def compare(
    first: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's folder, or its label on a leaderboard of the store.")
    ],
    second: Annotated[str, typer.Argument(metavar="MODEL", help="Another one, with the same tokenizer.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Of corpus.* and evaluation.*.")
    ] = None,
    store: StorePath = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Say how far apart two models are, document by document, with a 95 % interval.

    Both are scored on the same positions, so what makes a document hard for both cancels out. What the store holds is
    not scored again.
    """
    from evals.sums import compare as compare_sums
    from pipelines.common.numbers import with_error
    from pipelines.scoring.models import find_model
    from pipelines.scoring.scoring import Scoring
    from pipelines.scoring.stored_sums import sums_of
    from pipelines.store.opening import open_store

    single_threaded()
    where = open_store(store)
    one, other = (
        sums_of(Scoring(find_model(name, where), where, overrides or (), device), where) for name in (first, second)
    )
    found = compare_sums(one, other)
    if as_json:
        print(json.dumps({"first": first, "second": second, **asdict(found), "protocol_hash": one.protocol_hash}))
        return
    screen = console()
    low, high = found.interval
    say(screen, f"BrierLM of {first} minus that of {second}: {with_error(found.value, found.standard_error)}")
    say(screen, f"95 % interval {low:.2f} to {high:.2f}: {_verdict(low, high, first, second)}")
    for n, value, error in zip(one.ngram_lengths, found.components, found.component_errors, strict=True):
        say(screen, f"  Brier-{n}  {with_error(100 * value, 100 * error)}")
    unit = one.error_unit
    say(
        screen,
        f"times 100, ± one standard error over {len(one.sums.counts):,} {unit}s of "
        f"{int(one.sums.counts.sum()):,} common positions; protocol {one.protocol_hash}",
    )


def _verdict(low: float, high: float, first: str, second: str) -> str:
    if low > 0:
        return f"{first} is better"
    return f"{second} is better" if high < 0 else "the difference may be chance"
