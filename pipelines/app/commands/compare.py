"""Two models on the same positions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pipelines.app.commands.options import (
    MODEL_HELP,
    AsJson,
    Device,
    StorePath,
    console,
    print_json,
    say,
    single_threaded,
)


def compare(
    first: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    second: Annotated[str, typer.Argument(metavar="MODEL", help="Another one, with the same tokenizer.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Of corpus.* and evaluation.*.")
    ] = None,
    store: StorePath = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Say how far apart two models are, document by document, with a 95 % interval.

    Both are scored on the same positions, so what makes a document hard for both cancels out. A label of several seeds
    stands for their mean; NAME@SEED is one of them. What the store holds is not scored again.
    """
    from evals.sums import compare_seeds
    from pipelines.common.numbers import with_error
    from pipelines.scoring.models import find_seeds
    from pipelines.scoring.scoring import Scoring
    from pipelines.scoring.stored_sums import sums_of
    from pipelines.store.opening import open_store

    single_threaded()
    where = open_store(store)
    sides = [
        [sums_of(Scoring(model, where, overrides or (), device), where) for model in find_seeds(name, where)]
        for name in (first, second)
    ]
    one = sides[0][0]
    found = compare_seeds(sides[0], sides[1])
    seeds = [len(side) for side in sides]
    if as_json:
        told = {"first": first, "second": second, **asdict(found), "seeds": seeds, "protocol_hash": one.protocol_hash}
        print_json(told)
        return
    screen = console()
    low, high = found.interval
    say(screen, f"BrierLM of {first} minus that of {second}: {with_error(found.value, found.standard_error)}")
    verdict = _verdict(low, high, first, second)
    say(screen, f"95 % interval {low:.2f} to {high:.2f}, p {_p_value(found.p_value)}: {verdict}")
    for n, value, error in zip(one.ngram_lengths, found.components, found.component_errors, strict=True):
        say(screen, f"  Brier-{n}  {with_error(100 * value, 100 * error)}")
    unit = one.error_unit
    say(
        screen,
        f"times 100, ± one standard error over {len(one.sums.counts):,} {unit}s of "
        f"{int(one.sums.counts.sum()):,} common positions{_over_seeds(found.seed_error, *seeds)}; "
        f"protocol {one.protocol_hash}",
    )


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _over_seeds(error: float | None, first: int, second: int) -> str:
    if error is None:
        return "; one seed each: what other seeds would score is not in the error"
    alone = "; one seed of one of them: what others would score is not in the error" if 1 in (first, second) else ""
    return f" and over seeds ({first} and {second}, ±{error:.2g} of the error){alone}"


def _verdict(low: float, high: float, first: str, second: str) -> str:
    if low > 0:
        return f"{first} is better"
    return f"{second} is better" if high < 0 else "the difference may be chance"
