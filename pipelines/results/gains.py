"""What tuning gained: the settings that a search chose against those it began from, on text and seeds that chose none.

The score by which the best of many trials was chosen is too high by chance alone, and more so the more were tried.
Fresh trainings of both settings, scored on fresh text, are free of that, whatever the search did.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pipelines.results import sentences
from pipelines.results.answers import Gain
from pipelines.results.entry import Entry
from pipelines.results.final_rows import SEARCH_COST
from pipelines.results.pairing import difference
from pipelines.results.pooling import pooled


def gains_of(entries: Iterable[Entry]) -> list[Gain]:
    """The gain of every search of which both rows are there, in the order of their trials.

    Settings that were tuned to what they began from have one row and no gain to be measured.
    """
    rows = pooled(entry for entry in entries if entry.role != "search")
    untuned = {row.stratum: row for row in rows if row.role == "untuned"}
    found = []
    for row in leading(rows):
        start = untuned.get(row.stratum)
        if start is None or start.protocol_hash != row.protocol_hash:
            continue
        apart = difference(row, start)
        spent = {measure.key: measure.value for measure in row.measures}
        seeds = min(len(row.seeds) or 1, len(start.seeds) or 1)
        trials, flops = (spent.get(key) for key in SEARCH_COST)
        gained = apart.value, apart.error, *apart.interval
        is_clipped = row.brierlm == start.brierlm == 0
        count = None if trials is None else int(trials)
        one = Gain(row.stratum, row.label, *gained, seeds, count, flops, is_clipped=is_clipped)
        found.append(replace(one, sentence=sentences.gain(one)))
    return found


def leading(rows: Iterable[Entry]) -> list[Entry]:
    """The first row of each search among those that it chose: its best before test text was read.

    Which of several is best on test text must not decide which one stands for the search.
    """
    first: dict[tuple[str, str, str], Entry] = {}
    for row in sorted((row for row in rows if row.role == "selected"), key=lambda row: row.trial):
        first.setdefault((row.study, row.stratum, row.protocol_hash), row)
    return list(first.values())


def without_untuned(rows: Iterable[Entry]) -> list[Entry]:
    """The rows by which families are compared: tuned ones where there are any of the protocol, else all."""
    rows = list(rows)
    chosen = leading(rows)
    tuned = {row.protocol_hash for row in chosen}
    return [row for row in rows if row.protocol_hash not in tuned] + chosen
