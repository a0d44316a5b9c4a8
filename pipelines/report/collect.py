"""From the files of studies to what their report shows. Reads the store, computes no score anew, writes nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import calm_bench
from calm_bench.overrides import ConfigurationError
from pipelines.common.numbers import (
    MISSING,
    compact,
    duration,
    scientific,
    share_with_error,
    typeset,
    with_error,
)
from pipelines.common.sanitize import sanitize_label
from pipelines.report.boards import Origin, boards_of
from pipelines.report.columns import LONGEST_LABEL
from pipelines.report.curves import curves_of, points_for, rounded
from pipelines.report.data import (
    Autoencoder,
    Board,
    CheckpointCurve,
    ProbePoint,
    Report,
    StudyPart,
    Text,
    TrainingCurves,
    UnrankedTrial,
    Writing,
)
from pipelines.report.environment import Environment
from pipelines.report.estimates import estimates_of
from pipelines.report.links import Links, links_of
from pipelines.report.reproduce import commands_for, notes_for
from pipelines.report.searches import search_of
from pipelines.report.stage_records import StageRecords
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import load_board
from pipelines.results.looks import Family, Key, key_of, looks_of
from pipelines.results.stored import variants_of
from pipelines.results.trajectories import trajectories_of
from pipelines.store.refs import StageRef, StudyRef
from pipelines.store.store import Store
from pipelines.store.study_names import choose_studies, how_to_begin
from pipelines.store.study_record import StudyRecord
from pipelines.store.trial_record import TrialRecord, has_begun, load_trials
from pipelines.study.stage_kind import heading_of, kind_or_none
from pipelines.study.trial import TrialOutcome

MOST_TEXT = 1_500_000
"""Characters of samples on a page; the best rows' come first."""
LONGEST_TEXT = 4000
LONGEST_ERROR = 4000
MOST_AUTOENCODERS = 100
KEPT = ("training_flops", "cross_entropy", "cross_entropy_se", "brierlm", "brierlm_se")


@dataclass(frozen=True)
class _Study:
    folder: Path
    configuration: str
    settings: Mapping[str, Any]
    trials: Sequence[TrialRecord]
    entries: Sequence[Entry]
    links: Links

    @property
    def name(self) -> str:
        return str(self.settings.get("name") or StudyRef.of(self.folder).name)


def study_folders(store: Store, names: Sequence[str] = ()) -> list[Path]:
    """Folders of the studies in ``store`` that were begun, those that ``names`` mean if given.

    Raises:
        ConfigurationError: there is no such study, or none at all; says which there are.
    """
    found = [folder for folder in store.studies.folders(complete=True) if has_begun(folder)]
    if not found:
        raise ConfigurationError(f"no study was run in the store {store.uri} yet: {how_to_begin(store.uri)}")
    return choose_studies(names, found, store.uri)


def collect(store: Store, folders: Sequence[Path]) -> Report:
    """The report on the studies in ``folders`` of ``store``.

    Raises:
        ConfigurationError, LeaderboardError: a file of a study is damaged.
    """
    files = StageRecords(store.root)
    variants = variants_of(folders)
    studies = [_read(folder, variants.get(folder, "")) for folder in folders]
    origins: dict[Entry, Origin] = {}
    for index, study in enumerate(studies):
        by_model = _by_model(study.trials)
        for entry in study.entries:
            alike = by_model.get((entry.model_identity, entry.role), ())
            origins.setdefault(entry, Origin(index, study.links, _trial_of(entry, alike)))
    families = looks_of(origins)
    trajectories = trajectories_of(outcome for study in studies for outcome in _outcomes(study, files))
    environments = [Environment(files, study.trials) for study in studies]
    boards = boards_of(origins, _protocols(origins, files), families, trajectories)
    trained = _trained(boards)
    models, curves = [ref.identity for ref in trained if ref.kind == "language_model"], _curves(trained, files)
    writings, left_out = _writings(models, origins, files)
    return Report(
        title=" · ".join(dict.fromkeys(sanitize_label(study.name, LONGEST_LABEL) for study in studies)),
        studies=[_part(*each, files) for each in zip(studies, environments, strict=True)],
        boards=boards,
        families=[vars(family) for family in dict.fromkeys(families.values())],
        curves=curves,
        trainings=[(kind, heading_of(kind)) for kind in dict.fromkeys(each.kind for each in curves)],
        autoencoders=_autoencoders([ref.identity for ref in trained if ref.kind == "autoencoder"], files),
        writings=writings,
        kept=_kept(studies, families, files),
        left_out=left_out,
        training_flops=typeset(scientific(sum(each.flops for each in environments))),
        wall_time=duration(sum(each.wall_time_s for each in environments)),
        made_by=f"calm-bench {calm_bench.__version__}",
    )


def _read(folder: Path, variant: str) -> _Study:
    try:
        record = StudyRecord.load(folder)
        text, settings = record.text, record.settings
    except FileNotFoundError:
        text, settings = "", {}
    entries = [entry.model_copy(update={"variant": variant}) for entry in load_board(folder) or ()]
    return _Study(folder, text, settings, load_trials(folder), entries, links_of(folder))


def _by_model(trials: Iterable[TrialRecord]) -> dict[tuple[str, str], list[TrialRecord]]:
    """Trials by the identity of each of their stages, a model's among them, and by role."""
    found: dict[tuple[str, str], list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        for identity in trial.stages.values():
            found[identity, trial.role].append(trial)
    return found


def _trial_of(entry: Entry, alike: Sequence[TrialRecord]) -> TrialRecord | None:
    """The trial of a row among those ``alike`` in model and role; None where the study does not list it any more.

    While a study is made longer its leaderboard is the one of before, whose numbers may be other trials' by now.
    """
    return next((one for one in alike if one.number == entry.trial), alike[0] if alike else None)


def _outcomes(study: _Study, files: StageRecords) -> Iterable[TrialOutcome]:
    for trial in study.trials:
        if trial.state == "complete":
            results = {ref.kind: files.result(ref.kind, ref.identity) for ref in files.of_trial(trial)}
            yield TrialOutcome(trial.number, trial.label, trial.settings, "complete", results=results)


def _protocols(origins: Mapping[Entry, Origin], files: StageRecords) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for entry, origin in origins.items():
        identity = origin.stage("evaluation")
        if entry.protocol_hash not in found and identity:
            protocol = files.result("evaluation", identity).get("protocol")
            if protocol:
                found[entry.protocol_hash] = protocol
    return found


def _trained(boards: Sequence[Board]) -> list[StageRef]:
    """The trainings behind the rows: those of the language models first, and of a kind those of the best rows."""
    members = [member for board in boards for row in board.rows for member in row.members]
    found = dict.fromkeys(StageRef(*each) for member in members for each in member.trained.items())
    return sorted(found, key=lambda ref: ref.kind != "language_model")


def _curves(trained: Sequence[StageRef], files: StageRecords) -> list[TrainingCurves]:
    found, limit = [], points_for(len(trained))
    for ref in trained:
        folder = files.folder(ref.kind, ref.identity)
        known = kind_or_none(ref.kind)
        label = files.label(ref) if known is not None and known.label_is_enough else ""
        curves = None if folder is None else curves_of(ref, folder, limit, sanitize_label(label, LONGEST_LABEL))
        if curves is not None:
            found.append(curves)
    return found


def _autoencoders(identities: Sequence[str], files: StageRecords) -> list[Autoencoder]:
    """Smallest K first, then fewest dimensions; the identity is in the label where nothing else tells two apart."""
    found = []
    for identity in identities[:MOST_AUTOENCODERS]:
        result = files.result("autoencoder", identity)
        if not result:
            continue
        config = files.config("autoencoder", identity)
        probes = result.get("probes", {})
        latent = probes.get("latent_size") or config.get("autoencoder", {}).get("latent_size", 0)
        collapsed, std = probes.get("collapsed"), probes.get("posterior_std")
        kl = sorted((rounded(value) or 0.0 for value in (collapsed or {}).get("kl", ())), reverse=True)
        found.append(
            Autoencoder(
                model=identity,
                label=f"K={result['chunk_size']}, {latent} dimensions",
                chunk_size=result["chunk_size"],
                latent_size=latent,
                cells=[
                    _share(result["accuracy"], result.get("accuracy_se")),
                    f"{collapsed['value']} of {latent}" if collapsed else MISSING,
                    _share(**_measured(probes["posterior"])) if "posterior" in probes else MISSING,
                    MISSING if std is None else f"{std:.4g}",
                    compact(result["parameters"]),
                ],
                noise=[_probe_point(point) for point in probes.get("noise", ())],
                bits=[_probe_point(point) for point in probes.get("bits", ())],
                kl=kl,
                kl_texts=[f"{value:.4g}" for value in kl],
            )
        )
    names = Counter(each.label for each in found)
    found = [
        replace(each, label=f"{each.label} ({each.model[:6]})") if names[each.label] > 1 else each for each in found
    ]
    return sorted(found, key=lambda each: (each.chunk_size, each.latent_size))


def _measured(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"share": found["value"], "error": found.get("standard_error")}


def _share(share: float, error: float | None) -> str:
    return typeset(f"{100 * share:.2f}%" if error is None else share_with_error(share, error))


def _probe_point(point: Mapping[str, Any]) -> ProbePoint:
    found = _measured(point["accuracy"])
    return ProbePoint(float(point["level"]), found["share"], found["error"] or 0.0, _share(**found))


def _writings(
    models: Sequence[str], origins: Mapping[Entry, Origin], files: StageRecords
) -> tuple[list[Writing], list[str]]:
    stages = {entry.model_identity: origin.stage("samples") for entry, origin in origins.items()}
    found: list[Writing] = []
    missing = size = 0
    for model in models:
        identity = stages.get(model)
        texts = files.result("samples", identity).get("texts", ()) if identity else ()
        if not texts:
            continue
        size += sum(min(len(text["prompt"]) + len(text["text"]), 2 * LONGEST_TEXT) for text in texts)
        if size > MOST_TEXT:
            missing += 1
            continue
        found.append(
            Writing(
                model,
                [
                    Text(
                        float(text["temperature"]),
                        sanitize_label(text["prompt"], LONGEST_TEXT),
                        sanitize_label(text["text"], LONGEST_TEXT),
                        bool(text["ended"]),
                        int(text["num_tokens"]),
                    )
                    for text in texts
                ],
            )
        )
    return found, [f"The texts of {missing} models are left out to keep the page small."] if missing else []


def _kept(studies: Sequence[_Study], families: Mapping[Key, Family], files: StageRecords) -> list[CheckpointCurve]:
    found = []
    for study in studies:
        looks = {entry.trial: families[key_of(entry)].name for entry in study.entries}
        for trajectory in trajectories_of(_outcomes(study, files)):
            points = [{name: rounded(getattr(point, name), 6) or 0.0 for name in KEPT} for point in trajectory.points]
            at_most = "at most " if trajectory.cross_entropy_kind == "bound" else ""
            texts = [
                {
                    "training_flops": typeset(scientific(point.training_flops)),
                    "brierlm": typeset(with_error(point.brierlm, point.brierlm_se)),
                    "cross_entropy": at_most + typeset(with_error(point.cross_entropy, point.cross_entropy_se)),
                }
                for point in trajectory.points
            ]
            label = sanitize_label(trajectory.label, LONGEST_LABEL)
            family = looks.get(trajectory.trial, label)
            found.append(CheckpointCurve(label, family, trajectory.comparable[0], points, texts))
    return found


def _part(study: _Study, environment: Environment, files: StageRecords) -> StudyPart:
    from pipelines.study.search_settings import Search

    configuration = sanitize_label(study.configuration)
    configured = study.settings.get("search")
    corpus = next((ref for trial in study.trials for ref in files.of_trial(trial) if ref.kind == "corpus"), None)
    commands = commands_for(study.name, configuration, environment) if configuration else []
    return StudyPart(
        name=sanitize_label(study.name, LONGEST_LABEL),
        identity=StudyRef.of(study.folder).identity,
        description=sanitize_label(" ".join(str(study.settings.get("description") or "").split()), 2000),
        configuration=configuration,
        num_trials=len(study.trials),
        budget=sanitize_label(str(study.settings["budget"]), 100) if study.settings.get("budget") else None,
        finished=environment.finished,
        url=study.links.study,
        search=search_of(Search.model_validate(configured), study.trials) if configured else None,
        ended=[
            UnrankedTrial(
                trial.number,
                sanitize_label(trial.label, LONGEST_LABEL),
                trial.state,
                sanitize_label(trial.error or "", LONGEST_ERROR),
                {key: sanitize_label(str(value), 200) for key, value in trial.settings.items()},
                study.links.trial(trial.number),
            )
            for trial in study.trials
            if trial.state != "complete"
        ],
        commands=commands,
        notes=notes_for(commands, environment, files.result(corpus.kind, corpus.identity) if corpus else {}),
        environment=environment.table(),
        stages=environment.stages(),
        estimates=estimates_of(study.folder),
    )
