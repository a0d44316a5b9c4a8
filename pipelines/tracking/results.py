"""What a finished trial becomes in MLflow: its row, its model with the score, its data set, its files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calm_bench.config import Corpus
from pipelines.common.numbers import printable
from pipelines.common.redact import redact
from pipelines.results.entry import Entry
from pipelines.store.provenance import ProvenanceRecord
from pipelines.study.stage_kind import kind_or_none
from pipelines.tracking.description import trial_note
from pipelines.tracking.metrics import row_metrics, stage_metrics
from pipelines.tracking.pyfunc_files import COPY_FOLDER, FOLDER, write_pyfunc_files
from pipelines.tracking.rows import entry_tags
from pipelines.tracking.study_files import TrialEnd
from pipelines.tracking.tags import MODEL_FOLDER

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset


def push_result(
    client: MlflowClient,
    experiment_id: str,
    run_id: str,
    corpus: Corpus,
    entry: Entry,
    end: TrialEnd,
    when: int,
    copy_model: bool = False,
) -> str:
    """Write the row of a complete trial; writing it again changes nothing.

    Args:
        when: milliseconds since 1970 that its numbers are dated with.
        copy_model: whether MLflow is to have the weights too.

    Returns:
        The id of its logged model.
    """
    from mlflow.entities import DatasetInput, InputTag, Metric, RunTag

    dataset = _dataset(corpus, entry, end.results.get("corpus", {}))
    client.log_inputs(
        run_id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "training and evaluation")])]
    )
    for kind, path in artifacts(end.folders):
        client.log_artifact(run_id, str(path), kind)
    _push_model_files(client, run_id, entry, end, when, copy_model)
    model_id = _model_id(client, experiment_id, run_id, entry)
    client.log_batch(run_id, metrics=list(stage_metrics(end.results, when)))
    client.log_batch(
        run_id,
        metrics=[
            Metric(name, value, when, 0, model_id, dataset.name, dataset.digest, run_id)
            for name, value in row_metrics(entry).items()
        ],
        tags=[RunTag(name, value) for name, value in _tags(entry, end).items()],
    )
    return model_id


def _push_model_files(
    client: MlflowClient, run_id: str, entry: Entry, end: TrialEnd, when: int, copy_model: bool
) -> None:
    """Files by which ``mlflow.pyfunc`` loads the model; where it is to be copied, it arrives before they do."""
    copied = end.folders.get(FOLDER, Path()) / COPY_FOLDER
    if copy_model and copied.is_dir():
        client.log_artifacts(run_id, str(copied), f"{FOLDER}/{COPY_FOLDER}")
    with tempfile.TemporaryDirectory() as scratch:
        write_pyfunc_files(Path(scratch), entry, when)
        client.log_artifacts(run_id, scratch, FOLDER)


def artifacts(folders: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    """Files of finished stages that become artifacts, with their kinds."""
    for name, folder in folders.items():
        kind = kind_or_none(name)
        for file in () if kind is None else kind.artifacts:
            if (folder / file).is_file():
                yield name, folder / file


def _tags(entry: Entry, end: TrialEnd) -> dict[str, str]:
    tags = entry_tags(entry) | {
        "calm_bench.protocol_hash": entry.protocol_hash,
        "calm_bench.decode_mode": entry.decode_mode,
        "calm_bench.family": entry.family,
        **({"calm_bench.generation": printable(entry.generation)} if entry.generation else {}),
        "mlflow.note.content": trial_note(entry),
    }
    provenance = provenance_of(end.folders)
    if provenance.git is not None:
        tags["mlflow.source.git.commit"] = provenance.git.commit
    known = {"device": provenance.device, "host": provenance.host}
    return tags | {f"calm_bench.{name}": value for name, value in known.items() if value is not None}


def provenance_of(folders: Mapping[str, Path]) -> ProvenanceRecord:
    """Where a trial's language model comes from; without any field if that is not on record."""
    found = ProvenanceRecord.load(folders["language_model"]) if "language_model" in folders else None
    return found or ProvenanceRecord()


def _dataset(corpus: Corpus, entry: Entry, result: Mapping[str, Any]) -> Dataset:
    from mlflow.entities import Dataset

    places = [
        {"source": redact(member.source), "subset": member.subset, "revision": member.revision}
        for member in corpus.members
    ]
    shares = [{**place, "weight": member.weight} for place, member in zip(places, corpus.mixture, strict=False)]
    source = json.dumps({"source": corpus.source, "mixture": shares} if shares else places[0])
    sizes = {
        f"{what}_{split}": count
        for what in ("documents", "bytes")
        if isinstance(result.get(what), Mapping)
        for split, count in result[what].items()
    }
    left_out = {f"left out: {reason}": count for reason, count in result.get("skipped", {}).items()}
    # MLflow takes 36 characters of a digest.
    return Dataset(
        redact(corpus.source)[-500:],
        entry.corpus_digest[:32],
        "calm-bench corpus",
        source,
        profile=json.dumps(sizes | left_out) if sizes else None,
    )


def _model_id(client: MlflowClient, experiment_id: str, run_id: str, entry: Entry) -> str:
    """The logged model of a run: found, or created without copying its weights out of the store."""
    from mlflow.entities import LoggedModelOutput

    found = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    if found:
        model = found[0]
    else:
        model = client.create_logged_model(
            experiment_id,
            name="".join(c if c not in "/:.%\"'" else "_" for c in printable(entry.label))[:250] or "model",
            source_run_id=run_id,
            model_type=entry.family,
            params={"parameters": str(entry.parameters), "tokens": str(entry.tokens), "seed": str(entry.seed)},
            tags={
                "mlflow.model.isExternal": "true",
                "calm_bench.model_identity": entry.model_identity,
                MODEL_FOLDER: entry.model_folder,
                "calm_bench.protocol_hash": entry.protocol_hash,
            },
        )
    if str(model.status) != "READY":
        client.finalize_logged_model(model.model_id, "READY")
    outputs = client.get_run(run_id).outputs
    if outputs is None or not outputs.model_outputs:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    return str(model.model_id)
