"""How long the answers of tasks may be that the models of a study can score, as far as their tokenizers are known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calm_bench.config import Benchmarks, Tokens
from calm_bench.family_registry import FAMILIES
from calm_bench.folder_signs import no_such_folder
from pipelines.study.config import Study
from pipelines.study.graph import hub_revision
from pipelines.study.search_settings import leaves

if TYPE_CHECKING:
    from evals.answer_length import AnswerLimit, NamedVocabulary


def answer_limit(study: Study, benchmarks: Benchmarks, tokenizers: list[str]) -> AnswerLimit | None:
    """None where no tokenizer is known before there are tokens.

    Args:
        tokenizers: the ``tokens.tokenizer`` of all trials.
    """
    from evals.answer_length import AnswerLimit
    from evals.harness_reader import HarnessSettings

    vocabularies = [found for name in tokenizers if (found := _vocabulary(name, study.tokens)) is not None]
    sizes = list(_chunk_sizes(study))
    if not vocabularies or not sizes:
        return None
    return AnswerLimit(benchmarks.max_length or HarnessSettings.max_length, sizes, vocabularies)


def _vocabulary(name: str, tokens: Tokens) -> NamedVocabulary | None:
    from calm_bench.hub_commit import COMMIT
    from calm_bench.tokens.choose_tokenizer import build_tokenizer
    from calm_bench.tokens.tokenizer import TokenizerError

    if name == "bpe" or no_such_folder(name) is not None:
        return None
    named = tokens.model_copy(update={"tokenizer": name})
    revision = hub_revision(named)
    is_here = name == "bytes" or Path(name).expanduser().is_dir() or bool(COMMIT.fullmatch(revision or ""))
    try:
        return build_tokenizer(named.model_copy(update={"revision": revision}), ()) if is_here else None
    except TokenizerError:
        # Who needs it says so.
        return None


def _chunk_sizes(study: Study) -> Iterator[int]:
    """Tokens of a chunk of every model of the study; what no model can have is refused where it is tried."""
    base = {"model.kind": study.model.kind, "model.chunk_size": study.model.chunk_size}
    is_replaced = False
    for parameter in study.search.parameters:
        bundles: list[dict[str, Any]] = [{parameter.name: value} for value in parameter.values or ()]
        choices = parameter.choices or {}
        bundles += [choices[label] for label in parameter.include or choices]
        settings = [{path: given for key, part in one.items() for path, given in leaves(key, part)} for one in bundles]
        is_replaced |= bool(settings) and all(not base.keys().isdisjoint(own) for own in settings)
        for own in settings:
            if not base.keys().isdisjoint(own):
                yield from _size_of({**base, **own})
    if not is_replaced:
        yield from _size_of(base)


def _size_of(settings: dict[str, Any]) -> Iterator[int]:
    kind, size = settings["model.kind"], settings["model.chunk_size"]
    if kind in FAMILIES.names():
        size = FAMILIES.get(str(kind)).fixed_chunk_size or size
    if isinstance(size, int) and size > 0:
        yield size
