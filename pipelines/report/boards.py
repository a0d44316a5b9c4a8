"""Rows of several studies, pooled and ranked by protocol, each with the trainings behind it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.common.numbers import clipped_with_error, typeset
from pipelines.common.sanitize import sanitize_label
from pipelines.report.answers_table import answers_table
from pipelines.report.captions import caption, generation_caption
from pipelines.report.columns import LONGEST_LABEL, columns_for, page_columns, texts_of, values_of
from pipelines.report.data import Board, Row, SeedRun
from pipelines.report.links import Links
from pipelines.report.protocol_words import protocol_title, protocol_words
from pipelines.results.columns import ON_THE_FRONT
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Cost, Group, Leaderboard
from pipelines.results.looks import Family, Key, key_of
from pipelines.results.pooling import pooled
from pipelines.results.trajectories import Trajectory
from pipelines.store.trial_record import TrialRecord
from pipelines.study.stage_kind import streams_metrics

_COSTS: tuple[Cost, ...] = ("total_training_flops", "inference_flops_per_token")


@dataclass(frozen=True)
class Origin:
    """Where an entry comes from."""

    study: int
    links: Links
    trial: TrialRecord | None
    """As the study lists it; None where it does not."""

    @property
    def violations(self) -> tuple[str, ...]:
        """The constraints of the search that the trial breaks."""
        return () if self.trial is None else self.trial.violations

    @property
    def trained(self) -> dict[str, str]:
        """Identities of the trial's stages of kinds that log curves, by kind."""
        stages = {} if self.trial is None else self.trial.stages
        return {kind: identity for kind, identity in stages.items() if streams_metrics(kind)}

    def stage(self, kind: str) -> str | None:
        """Identity of the trial's stage of ``kind``."""
        return None if self.trial is None else self.trial.stages.get(kind)


def boards_of(
    origins: Mapping[Entry, Origin],
    protocols: Mapping[str, Mapping[str, Any]],
    families: Mapping[Key, Family],
    trajectories: Sequence[Trajectory],
) -> list[Board]:
    """A board per protocol, the one with the most rows first.

    Args:
        origins: of every entry, seeds not pooled.
        protocols: what was measured, by hash, where it is known.
    """
    groups = Leaderboard(pooled(origins)).groups
    trainings = _Trainings(origins)
    boards = []
    for group in sorted(groups, key=lambda group: (-len(group.entries), group.protocol_hash)):
        protocol = protocols.get(group.protocol_hash, {})
        shown = page_columns(group.entries)
        fronts = {cost: set(group.front(cost)) for cost in _COSTS}
        names = Counter(entry.label for entry in group.entries)
        rows = []
        for index, (rank, entry) in enumerate(zip(group.ranks, group.entries, strict=True)):
            members = trainings.of(entry)
            broken = [text for source, _ in members for text in source.violations]
            rows.append(
                Row(
                    key=f"{group.protocol_hash}-{index}",
                    label=sanitize_label(_name(entry, names[entry.label] > 1), LONGEST_LABEL),
                    study=sanitize_label(entry.study, LONGEST_LABEL),
                    rank=rank,
                    family=families[key_of(entry)].name,
                    head=entry.head,
                    values=values_of(entry, shown),
                    texts=texts_of(entry, shown),
                    members=[member for _, member in members],
                    fronts=[cost for cost, front in fronts.items() if entry in front],
                    violations=[sanitize_label(text, LONGEST_LABEL) for text in dict.fromkeys(broken)],
                )
            )
        boards.append(
            Board(
                protocol_hash=group.protocol_hash,
                title=protocol_title(protocol, group.protocol_hash),
                protocol=protocol_words(protocol, group.entries),
                settings=protocol,
                caption=_caption(group),
                columns=columns_for(group.entries),
                rows=rows,
                headline=headline_of(group, list(origins), trajectories, families),
            )
        )
    return boards


def _caption(group: Group) -> str:
    told = caption(group).replace(f"{ON_THE_FRONT} on the Pareto", "★ on the Pareto")
    return f"{told} {generation_caption(group.entries)}".rstrip()


def headline_of(
    group: Group, entries: Sequence[Entry], trajectories: Sequence[Trajectory], looks: Mapping[Key, Family]
) -> dict[str, Any]:
    """The headline of one protocol; where there is none to be had, what the best row says."""
    from pipelines.results.headline import headline

    own = [entry for entry in entries if entry.protocol_hash == group.protocol_hash]
    kept = [trajectory for trajectory in trajectories if trajectory.comparable[0] == group.protocol_hash]
    try:
        found = headline(own, kept)
    except ValueError as error:
        best = group.entries[0]
        name = sanitize_label(best.label, LONGEST_LABEL)
        return {
            "sentences": [
                f"{name} scores highest: BrierLM {typeset(clipped_with_error(best.brierlm, best.brierlm_se))}.",
                f"No comparison at equal scores: {sanitize_label(str(error), 500)}",
            ]
        }
    told = found.to_dict()
    for family in told["families"]:
        key = (family["kind"], family["chunk_size"], family["head"])
        family["look"] = looks[key].name if key in looks else family["name"]
    return told | {"table": answers_table(found)}


def _name(entry: Entry, is_one_of_several: bool) -> str:
    """The label, with the seed where nothing else tells rows apart."""
    says_seed = entry.seeds or f"seed={entry.seed}" in entry.label
    return f"{entry.label}, seed {entry.seed}" if is_one_of_several and not says_seed else entry.label


class _Trainings:
    """The trainings behind rows, pooled or not."""

    def __init__(self, origins: Mapping[Entry, Origin]) -> None:
        self._origins = origins
        self._alike: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        for entry in sorted(origins, key=lambda entry: (entry.study, entry.trial)):
            self._alike[entry.protocol_hash, entry.configuration].append(entry)

    def of(self, row: Entry) -> list[tuple[Origin, SeedRun]]:
        """By seed. Studies that share a training count once."""
        found: dict[int, tuple[Origin, SeedRun]] = {}
        pooled_ones = self._alike[row.protocol_hash, row.configuration] if row.seeds else [row]
        for entry in pooled_ones:
            if entry.seed in row.seeds or entry is row:
                origin = self._origins[entry]
                number = entry.trial if origin.trial is None else origin.trial.number
                member = SeedRun(
                    origin.study,
                    number,
                    entry.seed,
                    None if origin.trial is None else origin.links.trial(number),
                    entry.model_identity,
                    origin.trained | {"language_model": entry.model_identity},
                )
                found.setdefault(entry.seed, (origin, member))
        return [found[seed] for seed in sorted(found)]
