"""What tuning gained: the settings that a search chose against those it began from, on text and seeds that chose none.

The score by which the best of many trials was chosen is too high by chance alone, and more so the more were tried.
Fresh trainings of both settings, scored on fresh text, are free of that, whatever the search did.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from pipelines.results import sentences
from pipelines.results.answers import Gain
from pipelines.results.entry import Entry
from pipelines.results.final_rows import SEARCH_COST
from pipelines.results.pairing import difference
from pipelines.results.pooling import pooled


def gains_of(entries: Iterable[Entry]) -> list[Gain]:
    """The gain of every search of which both rows are there, study by study in the order of their trials.

    Settings that were tuned to what they began from have one row and no gain to be measured.
    """
    studies: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.role != "search":
            studies[entry.study, entry.study_identity].append(entry)
    names = _names(studies)
    return [gain for key, rows in studies.items() for gain in _gains_of_study(rows, names[key])]


def _gains_of_study(entries: Iterable[Entry], study: str) -> list[Gain]:
    """What the searches of one study gained: what another one began from, or trained alike, is none of its rows."""
    rows = pooled(entries)
    untuned = {(row.stratum, row.protocol_hash): row for row in rows if row.role == "untuned"}
    found = []
    for row in leading(rows):
        start = untuned.get((row.stratum, row.protocol_hash))
        if start is None:
            continue
        apart = difference(row, start)
        spent = {measure.key: measure.value for measure in row.measures}
        seeds = min(len(row.seeds) or 1, len(start.seeds) or 1)
        trials, flops = (spent.get(key) for key in SEARCH_COST)
        gained = apart.value, apart.error, *apart.interval
        is_clipped = row.brierlm == start.brierlm == 0
        count = None if trials is None else int(trials)
        one = Gain(row.stratum, row.label, *gained, seeds, count, flops, is_clipped=is_clipped, study=study)
        found.append(replace(one, sentence=sentences.gain(one)))
    return found


def _names(studies: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """What each study, given by name and identity, is called beside the others; empty where it is the only one."""
    keys = list(studies)
    called = [name for name, _ in keys]
    return {
        (name, identity): "" if len(keys) == 1 else name if called.count(name) == 1 else f"{name}-{identity[:4]}"
        for name, identity in keys
    }


def leading(rows: Iterable[Entry]) -> list[Entry]:
    """The first row of each search among those that it chose: its best before test text was read.

    Which of several is best on test text must not decide which one stands for the search.
    """
    first: dict[tuple[str, str, str, str], Entry] = {}
    for row in sorted((row for row in rows if row.role == "selected"), key=lambda row: row.trial):
        first.setdefault((row.study, row.study_identity, row.stratum, row.protocol_hash), row)
    return list(first.values())


def without_untuned(rows: Iterable[Entry]) -> list[Entry]:
    """The rows by which families are compared: tuned ones where there are any of the protocol, else all."""
    rows = list(rows)
    chosen = leading(rows)
    tuned = {row.protocol_hash for row in chosen}
    return [row for row in rows if row.protocol_hash not in tuned] + chosen
