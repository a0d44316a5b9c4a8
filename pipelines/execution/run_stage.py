"""Carry out one stage: what a worker does, in this process and on Ray alike."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from calm_bench.atomic import write_bytes
from calm_bench.devices import address_limit
from calm_bench.errors import RunError
from calm_bench.kept_folders import FolderGone
from calm_bench.shell_limits import lifted
from calm_bench.trusted_code import targets_in, trust_code
from calm_bench.working_directory import leave_removed
from pipelines.common.compiled_modules import way_out
from pipelines.common.redact import redact
from pipelines.execution.failures import Cause, WorkerFailed, cause_of, input_may_explain, name_of, with_notes
from pipelines.execution.worker_group import WorkerGroup
from pipelines.execution.worker_process import import_modules, prepare_process
from pipelines.store.errors import CorruptedStage
from pipelines.store.layout import WORK
from pipelines.store.lease import Lease
from pipelines.store.place import check_store, keeping_store
from pipelines.store.provenance import provenance
from pipelines.store.store import Store
from pipelines.store.workspace import ERROR, INPUTS
from pipelines.study.changed_source import refuse_changed
from pipelines.study.stage import Interrupted, Stage
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import StageKind, kind_or_none


class StageError(RunError):
    """A stage failed. Carries text only, so that it crosses process borders whatever the error was."""

    def __init__(self, message: str, details: str = "", cause: Cause = "permanent") -> None:
        super().__init__(message, details, cause)
        self.message = message
        self.details = details
        """The traceback in the worker."""
        self.cause: Cause = cause

    def __str__(self) -> str:
        return self.message


class DamagedInput(RunError):
    """A stage that this one reads is missing or not what was published. It is quarantined, to be made anew."""


def run_stage(
    store: Store,
    stage: Stage,
    kind: StageKind,
    context: StageContext,
    group: WorkerGroup | None = None,
) -> dict[str, Any]:
    """The result of ``stage``: from the store, from another process that works on it, or computed and published here.

    Args:
        context: what is asked for; its device may be ``auto``.
        group: workers of Ray that do the stage's work, while this process supervises; unset means this process.

    Raises:
        Interrupted: ``context.stop()`` turned true.
        StageError: the stage raised, or the store did when it was asked for the stage or its lease; the message says
            what, and where the traceback of the first is kept. Inputs that turned out to be damaged are quarantined by
            then, and ``cause`` is ``transient``.
        FolderGone: somebody moved or removed the store.
    """
    with keeping_store(store, WORK):
        try:
            return _run_stage(store, stage, kind, context, group)
        except (StageError, Interrupted, FolderGone):
            raise
        except Exception as error:
            # A store that is away for a while is no fault of the stage, and may be back at the next attempt.
            raise stage_error(stage, error) from error


def stage_error(stage: Stage, error: BaseException) -> StageError:
    """``error``, which is being handled, as that of an attempt at ``stage`` that left nothing in its work folder."""
    return StageError(redact(f"{stage}: {_in_words(error)}"), redact(traceback.format_exc()), cause_of(error))


def _run_stage(
    store: Store, stage: Stage, kind: StageKind, context: StageContext, group: WorkerGroup | None
) -> dict[str, Any]:
    for asked in _with_inputs(stage):
        # Code that a stage names comes from the study that the user asked for.
        trust_code(*targets_in(asked.config))
    while not store.is_done(stage):
        if context.stop():
            raise Interrupted(f"{stage} was stopped before it started")
        lease = store.claim(stage)
        if lease is None:
            if group is None:
                # Meanwhile: who takes over from a dead process can then begin at once.
                import_modules(kind)
            time.sleep(store.backend.wait_s)
            continue
        with lease:
            # It may have been published between the look and the claim.
            if store.is_done(stage):
                break
            try:
                return _run(store, stage, kind, replace(context, stop=_either(context.stop, lease)), group)
            except Interrupted:
                # A lease is lost when this process slept for long; whoever has it now will finish the stage.
                if not lease.lost or context.stop():
                    raise
    return store.result(stage)


def _with_inputs(stage: Stage) -> Iterator[Stage]:
    yield stage
    for source in stage.inputs.values():
        yield from _with_inputs(source)


def _either(stop: Callable[[], bool], lease: Lease) -> Callable[[], bool]:
    return lambda: stop() or lease.lost


def _run(
    store: Store,
    stage: Stage,
    kind: StageKind,
    context: StageContext,
    group: WorkerGroup | None,
) -> dict[str, Any]:
    work = store.work_folder(stage)
    taken = time.perf_counter()
    try:
        if group is None:
            device = prepare_process(kind, context.device)
            context = replace(context, device=device, earlier=partial(store.others_of, stage))
        work = store.open_work(stage, context.device)
        check_store(store)
        inputs = _inputs(store, stage, kind, work)
        _refuse_changed(stage, kind)
        started = time.perf_counter()
        try:
            if group is None:
                result = kind.run(stage, inputs, work, context)
            else:
                from pipelines.execution.ray_train import run_with_workers

                result, hardware = run_with_workers(group, stage, kind, inputs, work, context)
        except Exception as error:
            if not isinstance(error, Interrupted) and input_may_explain(error):
                # The stage may have read a damaged input, which no further attempt could mend.
                _check(stage.inputs.values(), store, error)
            raise
        wall_time_s = time.perf_counter() - started
        seen = context.device if group is None else "cpu"
        record = provenance(seen, stage.config.get("seed"), wall_time_s, result.get("training_flops"), started - taken)
        if group is not None:
            record |= {"device": hardware, "workers": group.size, "strategy": group.strategy}
        return store.publish(stage, result, record, kind.scratch)
    except Interrupted:
        raise
    except Exception as error:
        raise _told(stage, kind, work, error, group) from error


def _refuse_changed(stage: Stage, kind: StageKind) -> None:
    """
    Raises:
        ChangedSource: what the stage reads from outside of the store, or code that it runs, is not what it was
            described with.
    """
    refuse_changed(kind.changed(stage))
    for source in stage.inputs.values():
        known = kind_or_none(source.kind)
        if known is not None and known.brings_code:
            refuse_changed(known.changed(source))


def _inputs(store: Store, stage: Stage, kind: StageKind, work: Path) -> dict[str, Path]:
    """The folders of what ``stage`` reads, with all files but those that may stay elsewhere.

    Raises:
        DamagedInput: some are missing or not what was published.
    """
    partly = kind.left_elsewhere(stage)
    whole = {name: source for name, source in stage.inputs.items() if name not in partly}
    _check([source for source in whole.values() if _needs_check(source, store)], store)
    folders = {name: store.folder(source) for name, source in whole.items()}
    for name, left_out in partly.items():
        source = stage.inputs[name]
        try:
            folders[name] = store.fetch_without(source, left_out, work / INPUTS / name)
        except (FileNotFoundError, CorruptedStage) as error:
            _check([source], store, error)
            raise
    return folders


def _needs_check(source: Stage, store: Store) -> bool:
    """Whether a finished stage is to be compared with its hashes before it is read."""
    kind = kind_or_none(source.kind)
    return kind is None or not kind.checked_when_opened or not store.is_whole(source)


def _check(sources: Iterable[Stage], store: Store, error: Exception | None = None) -> None:
    """Quarantine the damaged ones of the finished stages ``sources``.

    Raises:
        DamagedInput: there are some.
    """
    if found := quarantine_damaged(sources, store):
        raise DamagedInput(". ".join(found)) from error


def quarantine_damaged(stages: Iterable[Stage], store: Store) -> list[str]:
    """Move what is damaged of the finished ``stages`` out of the way, so that it is made anew; a sentence for each."""
    found = []
    for stage in stages:
        if problems := store.corruption(stage):
            kept = store.quarantine(stage)
            moved = "" if kept is None else f" (moved to {kept})"
            found.append(f"{stage} is damaged: {'; '.join(problems)}{moved}")
    return found


def _told(stage: Stage, kind: StageKind, work: Path, error: Exception, group: WorkerGroup | None) -> StageError:
    """``error`` in words, with the traceback kept in the work folder."""
    details = redact(error.details if isinstance(error, WorkerFailed) else traceback.format_exc())
    where = ""
    # The disk may be full, which must not hide what happened.
    with suppress(OSError):
        if work.is_dir():
            write_bytes(work / ERROR, details.encode())
            where = f" (traceback in {work / ERROR})"
    # Another attempt begins elsewhere.
    is_left = isinstance(error, FileNotFoundError) and error.filename is None and leave_removed()
    cause = "transient" if isinstance(error, DamagedInput) or is_left else cause_of(error)
    if cause == "memory":
        first_line = next(iter(str(error).splitlines()), "")
        advice = kind.memory_advice(stage, None if group is None else group.strategy)
        limit = address_limit()
        # A shell's or a scheduler's limit leaves the machine's memory alone.
        limited = ""
        if limit is not None:
            limited = f"ulimit -v leaves each process {limit / 2**30:.3g} GiB; raise it ({lifted('v')}), else "
        message = f"{stage}: out of memory ({name_of(error)}: {first_line}); {limited}{advice}{where}"
        return StageError(redact(message), details, cause)
    return StageError(redact(f"{stage}: {_in_words(error)}{where}"), details, cause)


def _in_words(error: BaseException) -> str:
    return way_out(name_of(error), str(error)) or f"{name_of(error)}: {with_notes(error)}"
