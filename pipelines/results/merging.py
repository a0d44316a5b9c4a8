"""Rows from several leaderboards, such as results that others committed to git: each model once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipelines.common.numbers import clipped_with_error, printable
from pipelines.results.entry import Entry

_MEASURED = (
    "brier",
    "brier_se",
    "brierlm",
    "brierlm_se",
    "num_positions",
    "num_samples",
    "parameters",
    "training_flops",
    "autoencoder_training_flops",
    "inference_flops_per_token",
    "decode_mode",
)
"""What two rows of one model must agree in; times, folders and names of studies depend on who ran it."""


@dataclass(frozen=True)
class Merged:
    """Rows of all sources, and what people should know about those that were not taken."""

    entries: tuple[Entry, ...]
    remarks: tuple[str, ...]
    """A line for each conflict; rows that say the same twice are not worth one."""


def merged(sources: Sequence[tuple[str, Iterable[Entry]]]) -> Merged:
    """The rows of all ``sources``, each a name and its rows; what an earlier source holds, a later one cannot replace.

    A model is told by its stage's identity, that is by everything that decided its training, and by the protocol it
    was scored under. Two rows of one model that agree count once. Where they differ, as the arithmetic of two machines
    may, the earlier source's is taken and the other reported. A row that stands for several seeds gives way to these
    seeds' own rows if all are there, and else keeps them out.
    """
    taken: dict[tuple[str, tuple[str, ...]], tuple[str, Entry]] = {}
    remarks = []
    for name, entries in sources:
        for entry in entries:
            key = entry.protocol_hash, identities(entry)
            if key not in taken:
                taken[key] = name, entry
                continue
            first, held = taken[key]
            if any(getattr(entry, field) != getattr(held, field) for field in _MEASURED):
                remarks.append(
                    f"{printable(entry.label)} (model {entry.model_identity}, protocol {entry.protocol_hash}) has "
                    f"BrierLM {clipped_with_error(held.brierlm, held.brierlm_se)} in {first} and "
                    f"{clipped_with_error(entry.brierlm, entry.brierlm_se)} in {name}: {first}'s is shown"
                )
            elif entry.replicates and not held.replicates:
                # The same row, written by a version that could not compare pairs yet.
                taken[key] = first, held.model_copy(update={"replicates": entry.replicates})
    single = {(protocol, members[0]) for protocol, members in taken if len(members) == 1}
    kept = {
        key: found
        for key, found in taken.items()
        if len(key[1]) == 1 or not all((key[0], member) in single for member in key[1])
    }
    covered = {(protocol, member) for protocol, members in kept if len(members) > 1 for member in members}
    rows = [
        (name, entry)
        for (protocol, members), (name, entry) in kept.items()
        if len(members) > 1 or (protocol, members[0]) not in covered
    ]
    remarks += _overlaps(rows)
    return Merged(tuple(entry for _, entry in rows), tuple(remarks))


def identities(entry: Entry) -> tuple[str, ...]:
    """Identities of the models that a row stands for."""
    return tuple(sorted(entry.model_identities)) or (entry.model_identity,)


def _overlaps(rows: Sequence[tuple[str, Entry]]) -> list[str]:
    """Rows over seeds that have some seeds in common: nothing can be taken out of a mean."""
    several = [(name, entry, set(identities(entry))) for name, entry in rows if len(identities(entry)) > 1]
    return [
        f"{printable(entry.label)} over seeds {', '.join(map(str, entry.seeds))} in {name} and over seeds "
        f"{', '.join(map(str, other.seeds))} in {source} share models: both are shown"
        for index, (name, entry, members) in enumerate(several)
        for source, other, others in several[index + 1 :]
        if entry.protocol_hash == other.protocol_hash and members & others
    ]
