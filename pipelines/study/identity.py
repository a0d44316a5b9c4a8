"""The identity of a study: what its trials and their numbers depend on."""

from __future__ import annotations

from calm_bench.fingerprint import identity
from evals.task_identity import task_identity
from pipelines.study.config import Study
from pipelines.study.graph import CorpusIdentity, corpus_identity_of, hub_revision


def study_identity(study: Study, corpus_identity: CorpusIdentity = corpus_identity_of) -> str:
    """16 hex digits of what the trials of a study and their numbers depend on.

    Where and how it runs does not enter, nor ``search.num_trials``: a longer search continues a shorter one. Nor does
    what is done with its best: ``final`` may be asked for afterwards. ``search.split`` stands in the experiment.
    """
    experiment = study.experiment().model_dump(mode="json") | {"corpus": corpus_identity(study.corpus)}
    if (revision := hub_revision(study.tokens)) != study.tokens.revision:
        experiment["tokens"] |= {"revision": revision}
    tasks = [task_identity(task) for task in study.benchmarks.tasks]
    if any(task.content is not None for task in tasks):
        names = {"tasks": [task.name for task in tasks], "contents": [task.content for task in tasks]}
        experiment["benchmarks"] |= names
    search = study.search.model_dump(mode="json", exclude={"num_trials", "split", "allow_test_objective"})
    # Only where it is set, so that a study without keeps its name.
    budget = {} if study.budget is None else {"budget": study.budget}
    return identity({"name": study.name, "experiment": experiment, "search": search, **budget})
