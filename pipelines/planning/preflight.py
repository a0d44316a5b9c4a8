"""What a study asks for that can be refused before anything is trained: scorers, tasks and their data."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from calm_bench.config import Benchmarks, Tokens
from calm_bench.folder_signs import judge_fault, model_fault, no_such_folder, tokenizer_fault
from calm_bench.overrides import ConfigurationError
from calm_bench.source_digest import INTO_A_FILE, code_digest
from calm_bench.trusted_code import targets_in
from pipelines.common.shell_commands import ADDRESSES
from pipelines.planning.answer_limits import answer_limit
from pipelines.planning.sound_settings import check_settings
from pipelines.study.config import Study
from pipelines.study.graph import OWN_TOKENIZERS, hub_revision
from pipelines.study.kinds.evaluation import MIN_WINDOWS
from pipelines.study.named_content import given

FOLDERS = {
    "tokens.tokenizer": tokenizer_fault,
    "autoencoder.pretrained.folder": model_fault,
    "model.pretrained.folder": model_fault,
    "samples.judge": judge_fault,
}
"""Settings that may name a folder, with what finds a fault in such."""


def check_study(study: Study, fetch: bool = False) -> list[str]:
    """Refuse scorers, tasks and tokenizers that no trial could use.

    Args:
        fetch: whether the tokenizer may be brought from a hub, where nothing of it is here: then it is known by its
            commit from the beginning.

    Returns:
        Tasks whose scores will not be kept for a later run, a sentence each.

    Raises:
        ConfigurationError: settings that no study can mean, no text to watch trainings by, or none to score, or no
            GPU where one is asked for, a folder whose files cannot be a model or a tokenizer, or an address as the
            store keeps it, without password.
        UnknownName: a scorer or task that does not exist; names the nearest.
        MissingData, TaskFileError: a task's data or questions cannot be used.
        ChangedCode, AmbiguousModule, CodeInNoFile: of code of one's own nobody could tell which is meant.
    """
    from evals.task_identity import task_identity, unkept
    from evals.task_loading import check_tasks

    check_settings(study, _variants(study))
    for split in ("validation", "test"):
        if getattr(study.corpus, f"{split}_fraction") == 0:
            what = "watches trainings" if split == "validation" else "scores models"
            raise ConfigurationError(
                f"corpus.{split}_fraction=0 leaves no text for what {what}: a study needs both, so give it a fraction "
                "above 0"
            )
    execution = study.execution
    for module in sorted({target.partition(":")[0] for target in targets_in(study.model_dump(mode="json"))}):
        # What was edited after its import, is called as another or lies in no file, before a trial fails by it.
        code_digest(module)
    if execution.backend == "ray" and execution.device == "cuda" and execution.gpus_per_stage == 0:
        raise ConfigurationError(
            "execution.device=cuda needs execution.gpus_per_stage=1 (or a fraction): Ray shows a stage no GPU otherwise"
        )
    if (windows := study.evaluation.max_windows) is not None and windows < MIN_WINDOWS:
        raise ConfigurationError(
            f"evaluation.max_windows={windows}: a score with an error needs {MIN_WINDOWS} windows or more"
        )
    for setting, variable in ADDRESSES.items():
        (address, *_) = given(study, setting)
        if address is not None and "***@" in address:
            raise ConfigurationError(
                f"{setting}={address} has lost its password, which no store keeps: give the whole address beside the "
                f"file ({setting}=ADDRESS), or {setting}=null for that of {variable}"
            )
    for setting, fault_in in FOLDERS.items():
        for name in set(given(study, setting)) - {None, *OWN_TOKENIZERS}:
            # What Git LFS left in place of weights would be seen after whatever is trained before they are read.
            if (wrong := fault_in(Path(name).expanduser())) is not None:
                raise ConfigurationError(f"{setting}={name}: {wrong}")
    for name in set(given(study, "tokens.tokenizer")) - {*OWN_TOKENIZERS}:
        _check_tokenizer(name)
    if fetch:
        _fetch_tokenizer(study.tokens)
    notes: dict[str, None] = {}
    tokenizers = list(dict.fromkeys(given(study, "tokens.tokenizer")))
    for benchmarks in _variants(study):
        if benchmarks.scorer is not None:
            # Of token models too, whose scores it does not enter: a misspelt word is nobody's intention.
            _check_scorer(benchmarks.scorer)
        if (wrong := _too_short(study, benchmarks, tokenizers)) is not None:
            raise ConfigurationError(wrong)
        if benchmarks.tasks:
            # What is needed for it takes seconds to import.
            check_tasks(benchmarks.tasks, benchmarks.limit, partial(answer_limit, study, benchmarks, tokenizers))
        for reason in unkept([task_identity(task) for task in benchmarks.tasks]):
            notes[f"{reason}. Until then its scores are computed anew in every run"] = None
    return list(notes)


def _too_short(study: Study, benchmarks: Benchmarks, tokenizers: list[str]) -> str | None:
    """Whether an answer of a task that ships here is longer than what is read; others are looked at themselves."""
    from evals.tasks import LENGTHS_OF_ANSWERS

    asked = [name for name in benchmarks.tasks if name in LENGTHS_OF_ANSWERS]
    if benchmarks.max_length is None or not asked:
        return None
    limit = answer_limit(study, benchmarks, tokenizers)
    for name in asked if limit is not None else ():
        assert limit is not None
        if (wrong := limit.fault("a", "x" * LENGTHS_OF_ANSWERS[name])) is not None:
            return f"benchmarks.max_length={benchmarks.max_length}: {name}: {wrong}"
    return None


def check_workers_find_code(study: Study) -> None:
    """
    Raises:
        ConfigurationError: a class stands in the script that was started, which workers of Ray do not import.
    """
    named = [target for target in targets_in(study.model_dump(mode="json")) if target.startswith("__main__:")]
    if named and study.execution.backend == "ray":
        raise ConfigurationError(
            f"{named[0]} stands in the script that was started, and workers of Ray import no script. {INTO_A_FILE}, or "
            "use run(local=True)"
        )


def _check_tokenizer(name: str) -> None:
    """Load the tokenizer of a folder: without an end of text, or with files missing, it would fail after the corpus."""
    from calm_bench.tokens.folder_size import loaded_vocab_size
    from calm_bench.tokens.tokenizer import TokenizerError

    if (wrong := no_such_folder(name)) is not None:
        raise ConfigurationError(f"tokens.tokenizer={name}: {wrong}")
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return
    try:
        loaded_vocab_size(folder)
    except TokenizerError as error:
        raise ConfigurationError(str(error)) from error


def _fetch_tokenizer(tokens: Tokens) -> None:
    """Bring a tokenizer of the hub here that is known by its name, a branch or a tag, unless it is here."""
    from calm_bench.hub_commit import COMMIT
    from calm_bench.tokens.hugging_face import HuggingFaceTokenizer
    from calm_bench.tokens.tokenizer import TokenizerError

    if tokens.tokenizer in OWN_TOKENIZERS or Path(tokens.tokenizer).expanduser().is_dir():
        return
    if COMMIT.fullmatch(hub_revision(tokens) or ""):
        return
    try:
        HuggingFaceTokenizer.from_pretrained(tokens.tokenizer, tokens.revision)
    except TokenizerError as error:
        raise ConfigurationError(
            f"{error}. Where the store holds its tokens, tokens.revision=COMMIT goes on with them (the commit stands "
            "in config.json of their stage)"
        ) from error


def _check_scorer(name: str) -> None:
    from evals.scorers import EXACT, SCORERS

    if name != EXACT:
        SCORERS.get(name)


def _variants(study: Study) -> Iterator[Benchmarks]:
    """The settings of the base experiment, and each with what a search parameter lists."""
    yield study.benchmarks
    prefix = "benchmarks."
    for parameter in study.search.parameters:
        bundles: list[dict[str, Any]] = [{parameter.name: value} for value in parameter.values or ()]
        bundles += (parameter.choices or {}).values()
        for bundle in bundles:
            own = {key.removeprefix(prefix): value for key, value in bundle.items() if key.startswith(prefix)}
            if own:
                yield Benchmarks.model_validate(study.benchmarks.model_dump() | own)
