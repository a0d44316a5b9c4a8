"""From an experiment to its stages: corpus, tokens, autoencoder, language model, evaluation.

The configuration of each stage holds only what its own result depends on, so trials share whatever they can: one
autoencoder for all language models of one chunk size, one set of tokens for all.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from calm_bench.config import Benchmarks, Corpus, Experiment, LanguageModel, Samples, Tokens
from calm_bench.fingerprint import folder_identity
from calm_bench.model_code import model_code
from calm_bench.overrides import ConfigurationError
from calm_bench.pretrained_config import Pretrained, folder_chunk_size
from calm_bench.registry import UnknownName
from evals.task_identity import task_identity, unkept
from pipelines.study.stage import Stage, StageGraph
from pipelines.study.stage_kind import STAGE_KINDS, StageKind

THIS_RUN = secrets.token_hex(8)
"""Stands in the identity of stages that nobody else may take for their own: what they depend on is not known."""

CorpusIdentity = Callable[[Corpus], dict[str, Any]]
HUGGING_FACE_PREFIX = "hf:"
OWN_TOKENIZERS = ("bytes", "bpe")
"""Settings that name no tokenizer of the hub or of a folder."""


def stages_for(experiment: Experiment, corpus_identity: CorpusIdentity | None = None) -> StageGraph:
    """The stages of one experiment; nothing is run or downloaded.

    Args:
        corpus_identity: what a corpus depends on; give a cached :func:`corpus_identity_of` where many experiments
            share a large local corpus, whose content is read to name it.

    Raises:
        CorpusError: the corpus is unknown, unreadable, or not pinned.
        ConfigurationError: one of ``extra_stages`` cannot be.
    """
    corpus = _stage(
        "corpus",
        config=(corpus_identity or corpus_identity_of)(experiment.corpus),
        settings={"corpus": _portable(experiment.corpus).model_dump(mode="json")},
        label=f"corpus {_corpus_label(experiment.corpus)}",
    )
    tokens = _stage(
        "tokens",
        config=_tokens_identity(experiment.tokens),
        settings={"tokens": _portable_tokens(experiment.tokens).model_dump(mode="json")},
        inputs={"corpus": corpus},
        label=f"tokens {_base_name(experiment.tokens.tokenizer)}",
    )
    model = experiment.model
    stages = [corpus, tokens]
    inputs = {"tokens": tokens}
    if model.needs_autoencoder:
        autoencoder = experiment.autoencoder.model_dump(mode="json") | {"chunk_size": model.chunk_size}
        content, settings = _pretrained("autoencoder", experiment.autoencoder.pretrained, model.chunk_size)
        inputs["autoencoder"] = _stage(
            "autoencoder",
            config={"seed": experiment.seed, "autoencoder": autoencoder | content},
            inputs={"tokens": tokens},
            settings=settings,
            label=f"autoencoder K={model.chunk_size}",
        )
        stages.append(inputs["autoencoder"])
    # Only where they are asked for, so that asking for none trains the same model as ever.
    snapshots = {"snapshots": experiment.trajectory.snapshots} if experiment.trajectory else {}
    content, settings = _pretrained("model", model.pretrained, model.chunk_size)
    language_model = _stage(
        "language_model",
        config={"seed": experiment.seed, "model": _model_identity(model) | content, **_own_code(model), **snapshots},
        inputs=inputs,
        settings=settings,
        label=model.family.label(model.chunk_size),
    )
    evaluation = _stage(
        "evaluation",
        config={"protocol": _protocol_identity(experiment)},
        inputs={"corpus": corpus, "tokens": tokens, "language_model": language_model},
        label=f"evaluation of the {language_model.label}",
    )
    own = StageGraph((*stages, language_model, evaluation, *_extras(experiment, evaluation)))
    return StageGraph((*own.stages, *_extra_stages(experiment, own)))


def _extras(experiment: Experiment, evaluation: Stage) -> Iterator[Stage]:
    """What an experiment asks for beside its score."""
    corpus, tokens, model = (evaluation.inputs[name] for name in ("corpus", "tokens", "language_model"))
    samples, benchmarks, trajectory = experiment.samples, experiment.benchmarks, experiment.trajectory
    if samples.num_prompts:
        yield _stage(
            "samples",
            **_samples_identity(experiment.seed, samples),
            inputs={"tokens": tokens, "language_model": model},
            label=f"text by the {model.label}",
        )
    if benchmarks.tasks:
        yield _stage(
            "benchmarks",
            **_benchmarks_identity(benchmarks),
            inputs={"corpus": corpus, "tokens": tokens, "language_model": model},
            label=f"tasks of the {model.label}",
        )
    if trajectory is not None:
        yield _stage(
            "trajectory",
            config={**evaluation.config, "trajectory": trajectory.model_dump(mode="json")},
            inputs={"corpus": corpus, "tokens": tokens, "language_model": model},
            label=f"trajectory of the {model.label}",
        )


def check_extra_stages(experiment: Experiment) -> list[tuple[StageKind, dict[str, Any]]]:
    """The kinds of the stages that ``experiment`` asks for beside those of every study, with their settings.

    Raises:
        ConfigurationError: there is no such kind (names the nearest), it cannot be asked for in this way or twice, or
            its settings cannot be.
    """
    found: dict[str, tuple[StageKind, dict[str, Any]]] = {}
    for extra in experiment.extra_stages:
        try:
            kind = STAGE_KINDS.get(extra.kind)
            if not kind.reads:
                raise ValueError("it is part of every study or has a section of its own")
            if kind.name in found:
                raise ValueError("it is asked for twice")
            found[kind.name] = kind, dict(kind.settings(extra.settings))
        except UnknownName as error:
            raise ConfigurationError(f"extra_stages: {error}") from error
        except ValueError as error:
            raise ConfigurationError(f"extra_stages, kind {extra.kind}: {error}") from error
    return list(found.values())


def _extra_stages(experiment: Experiment, graph: StageGraph) -> Iterator[Stage]:
    for kind, settings in check_extra_stages(experiment):
        yield _stage(
            kind.name,
            config={
                "seed": experiment.seed,
                "settings": settings,
                **_code("code", STAGE_KINDS.code_digest(kind.name)),
            },
            inputs={name: graph[name] for name in kind.reads if name in graph},
            label=f"{kind.name} of the {graph['language_model'].label}",
        )


def corpus_identity_of(corpus: Corpus) -> dict[str, Any]:
    """What the documents of a corpus depend on: its settings without paths, and content, version or revision."""
    from calm_bench.corpora import corpus_code, corpus_dependencies, identity_config

    digests = corpus_code(corpus)
    code = _code("code", " ".join(digests) or None)
    return {"corpus": identity_config(corpus), "depends_on": corpus_dependencies(corpus), **code}


def _stage(
    kind: str,
    config: dict[str, Any],
    inputs: dict[str, Stage] | None = None,
    settings: dict[str, Any] | None = None,
    label: str = "",
) -> Stage:
    return Stage(kind, STAGE_KINDS.get(kind).revision, config, inputs or {}, settings or {}, label)


def _tokens_identity(tokens: Tokens) -> dict[str, Any]:
    found: dict[str, Any] = {"tokenizer": tokens.tokenizer, "shard_tokens": tokens.shard_tokens}
    if tokens.tokenizer == "bpe":
        found["vocab_size"] = tokens.vocab_size
    elif tokens.tokenizer != "bytes":
        folder = _tokenizer_folder(tokens)
        if folder is None:
            found["revision"] = hub_revision(tokens)
        else:
            found["tokenizer"] = folder_identity(folder)
    return found


def hub_revision(tokens: Tokens) -> str | None:
    """The commit of a tokenizer of the hub, as the settings or the hub's cache here tell it; else what is set.

    Without a commit a name says what it was when the tokens were made to nobody.
    """
    from calm_bench.hub_commit import kept_snapshot

    if tokens.tokenizer in OWN_TOKENIZERS or _tokenizer_folder(tokens) is not None:
        return tokens.revision
    kept = kept_snapshot(tokens.tokenizer, tokens.revision)
    return tokens.revision if kept is None else kept.name


def _model_identity(model: LanguageModel) -> dict[str, Any]:
    """What a family has no use for, such as the head of a token model, must not set two models apart."""
    return model.model_dump(mode="json", exclude=set(model.family.unused))


def _pretrained(section: str, part: Pretrained, chunk_size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a part from a folder puts into the configuration of its section and into the settings of its stage: the
    folder's content stands in the one, its path in the other."""
    if part.folder is None:
        return {}, {}
    folder = Path(part.folder).expanduser().absolute()
    if not (folder / "config.json").is_file():
        raise ConfigurationError(
            f"{section}.pretrained.folder: {part.folder} is no model folder: it has no config.json"
        )
    found = folder_chunk_size(folder)
    if section == "autoencoder" and found not in (None, chunk_size):
        raise ConfigurationError(
            f"autoencoder.pretrained.folder: the autoencoder of {part.folder} packs {found} tokens, and "
            f"model.chunk_size is {chunk_size}"
        )
    written = {"folder": folder_identity(folder), "training_flops": part.training_flops}
    return {"pretrained": written}, {"pretrained": str(folder)}


def _own_code(model: LanguageModel) -> dict[str, Any]:
    """What the settings do not tell: the revision of the family, and the content of code from elsewhere, whose name
    does not change with it."""
    revision = model.family.revision
    return ({} if revision == 1 else {"family_revision": revision}) | model_code(model)


def _code(name: str, digest: str | None) -> dict[str, str]:
    """The content of a plug-in's code under ``name``; nothing where the revisions of stages stand for it."""
    return {} if digest is None else {name: digest}


def _protocol_identity(experiment: Experiment) -> dict[str, Any]:
    """The whole protocol, except the digests that the input stages will tell."""
    from evals.protocol import protocol_for

    chunk_size = experiment.model.chunk_size if experiment.model.is_chunked else None
    protocol = protocol_for(experiment.evaluation, corpus_digest="", tokenizer_digest="", chunk_size=chunk_size)
    return protocol.model_dump(mode="json", exclude={"corpus_digest", "tokenizer_digest"})


def _samples_identity(seed: int, samples: Samples) -> dict[str, Any]:
    """Configuration and settings of the stage: the judge's folder by its content, its path not in the identity."""
    written = samples.model_dump(mode="json")
    if samples.judge is None:
        return {"config": {"seed": seed, "samples": written}}
    folder = Path(samples.judge).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigurationError(
            f"samples.judge: there is no folder {samples.judge}: give one with a causal language model of "
            "transformers, as save_pretrained writes it"
        )
    config = {"seed": seed, "samples": written | {"judge": folder_identity(folder)}}
    return {"config": config, "settings": {"judge": str(folder)}}


def _benchmarks_identity(benchmarks: Benchmarks) -> dict[str, Any]:
    """Configuration and settings of the stage: task files by name and content, their paths not in the identity."""
    tasks = [task_identity(task) for task in benchmarks.tasks]
    written = benchmarks.model_dump(mode="json")
    code = _scorer_code(benchmarks.scorer)
    if all(task.content is None for task in tasks):
        return {"config": {"benchmarks": written, **code}}
    config = {"benchmarks": written | {"tasks": [task.name for task in tasks]}, "tasks": [t.content for t in tasks]}
    config |= code
    if unkept(tasks):
        config["run"] = THIS_RUN
    settings: dict[str, Any] = {"tasks": [task.written for task in tasks]}
    if commits := {name: commit for task in tasks for name, commit in task.commits.items()}:
        # A worker elsewhere, or a later try, is to have the same.
        settings["commits"] = commits
    return {"config": config, "settings": settings}


def _scorer_code(name: str | None) -> dict[str, str]:
    from evals.scorers import EXACT, SCORERS

    return {} if name in (None, EXACT) else _code("scorer_code", SCORERS.code_digest(str(name)))


def _portable(corpus: Corpus) -> Corpus:
    """The same corpus named by absolute path: a worker may run in another folder."""
    if corpus.mixture:
        sources = [member.model_copy(update={"source": _absolute(member.source)}) for member in corpus.mixture]
        return corpus.model_copy(update={"mixture": tuple(sources)})
    return corpus.model_copy(update={"source": _absolute(corpus.source)})


def _absolute(source: str) -> str:
    """The source, an existing path by its absolute name."""
    prefix = HUGGING_FACE_PREFIX if source.startswith(HUGGING_FACE_PREFIX) else ""
    path = Path(source.removeprefix(prefix)).expanduser()
    from calm_bench.corpora import source_name

    if path.exists() and (prefix or source_name(source) == "local"):
        return f"{prefix}{path.absolute()}"
    return source


def _portable_tokens(tokens: Tokens) -> Tokens:
    folder = _tokenizer_folder(tokens)
    if folder is None:
        # A worker, or a later try, is to have the same.
        return tokens.model_copy(update={"revision": hub_revision(tokens)})
    return tokens.model_copy(update={"tokenizer": str(folder.absolute())})


def _tokenizer_folder(tokens: Tokens) -> Path | None:
    path = Path(tokens.tokenizer).expanduser()
    return path if tokens.tokenizer not in OWN_TOKENIZERS and path.is_dir() else None


def _corpus_label(corpus: Corpus) -> str:
    """The source without its folders; of a mixture each one with its share of the tokens."""
    if not corpus.mixture:
        return _base_name(corpus.source)
    total = sum(member.weight for member in corpus.mixture)
    return ", ".join(f"{member.weight / total:.3g} {_base_name(member.source)}" for member in corpus.mixture)


def _base_name(source: str) -> str:
    return os.path.basename(source.rstrip("/")) or source
