"""BrierLM as tasks of lm-eval: ``brierlm`` in the model's own tokens, ``brierlm_words`` in words.

A document of a task is a whole document of the test split, and errors are between documents. The model answers a
request type of our own (:mod:`evals.adapters.lm_eval_requests`).

The task file's ``protocol`` has the settings of the protocol. lm-eval's ``metadata`` may change them, under the task's
name; they may have the settings of another ``corpus`` than ``stdlib``, and a ``corpus_folder`` where that is written
already. After a run, the metadata in ``results["configs"]`` hold the
protocol, its hash, and the numbers of samples, positions and documents.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task

from calm_bench.config import Corpus
from evals.adapters.lm_eval_internals import add_request_types
from evals.adapters.lm_eval_requests import Answer, sample_text, sample_tokens, token_protocol
from evals.evaluate import BrierResult
from evals.protocol import NGRAM_LENGTHS, Protocol, made
from evals.tasks.held_out import held_out_documents
from evals.text_brier import summarised
from evals.text_protocol import TextProtocol, combined_digest, document_digest

add_request_types(sample_text, sample_tokens)

COUNTS = ("num_samples", "num_positions", "num_documents")
"""Metrics that say how much was scored."""


class BrierTask(Task):  # type: ignore[misc]
    """What both tasks have in common."""

    VERSION = 1.0
    REQUEST: ClassVar[str]

    def __init__(self, config: Mapping[str, Any]) -> None:
        metadata = dict(config.get("metadata") or {})
        self._settings: dict[str, Any] = {**config["protocol"], **metadata.get(config["task"], {})}
        corpus = Corpus.model_validate(metadata.get("corpus") or {"source": "stdlib"})
        self._documents = [
            {"text": text, "number": number}
            for number, text in enumerate(held_out_documents(corpus, metadata.get("corpus_folder")))
        ]
        super().__init__()
        described = {"task": config["task"], "output_type": self.REQUEST, "num_fewshot": 0, "metadata": metadata}
        for key, value in {**described, "generation_kwargs": None}.items():
            self.set_config(key, value)
        self.result: BrierResult | None = None

    @abstractmethod
    def _protocol(self, digests: Sequence[str], records: Sequence[Mapping[str, Any]]) -> Protocol | TextProtocol:
        """Protocol of the scored documents, given their digests and what the model answered."""

    def download(self, *_: Any, **__: Any) -> None:
        """Nothing: the text is made of what every Python has."""

    def has_training_docs(self) -> bool:
        return False

    def has_validation_docs(self) -> bool:
        return False

    def has_test_docs(self) -> bool:
        return True

    def test_docs(self) -> list[dict[str, Any]]:
        return self._documents

    def doc_to_text(self, doc: Mapping[str, Any]) -> str:
        text: str = doc["text"]
        return text

    def doc_to_target(self, doc: Mapping[str, Any]) -> str:
        """None: the targets are in the text itself."""
        return ""

    def fewshot_context(self, doc: Mapping[str, Any], *_: Any, **__: Any) -> str:
        """The document; there is nothing to show examples of."""
        return self.doc_to_text(doc)

    def construct_requests(self, doc: dict[str, Any], ctx: str, **settings: Any) -> Instance:
        """One request for all positions of a document."""
        return Instance(
            request_type=self.REQUEST,
            doc=doc,
            arguments=(ctx, self._settings),
            idx=0,
            metadata=settings["metadata"],
        )

    def process_results(self, doc: Mapping[str, Any], results: Sequence[Answer]) -> dict[str, Any]:
        """All of a document's scores under the first metric, ``brierlm``; the others follow from them."""
        record = {"number": doc["number"], "digest": document_digest(doc["text"]), **results[0]}
        return {name: record if name == "brierlm" else None for name in self._metrics}

    def aggregation(self) -> dict[str, Callable[[list[Any]], Any]]:
        """From the documents' records to the metrics; ``brierlm``, which is aggregated first, gives them all."""

        def of(name: str) -> Callable[[list[Any]], Any]:
            return lambda _: self._values()[name]

        return {name: of(name) for name in self._metrics} | {"brierlm": self._brierlm}

    def higher_is_better(self) -> dict[str, bool]:
        return {name: True for name in self._metrics if name.startswith("brier") and not name.endswith("_stderr")}

    @property
    def _metrics(self) -> list[str]:
        """In the order of aggregation.

        lm-eval knows no standard error for aggregations like ours and notes N/A under ``<metric>_stderr``. Metrics of
        that name come right after and take the place.
        """
        scores = ["brierlm", *(f"brier_{n}" for n in self._settings.get("ngram_lengths", NGRAM_LENGTHS))]
        return [name for score in scores for name in (score, f"{score}_stderr")] + list(COUNTS)

    def _brierlm(self, records: list[dict[str, Any]]) -> float:
        records = sorted(records, key=lambda record: int(record["number"]))
        scores = [score for record in records for score in record["scores"]]
        # Copies of a document are one: they say nothing that it does not.
        first = {record["digest"]: record["number"] for record in reversed(records)}
        stretches = [(first[record["digest"]], stretch) for record in records for _, stretch in record["places"]]
        protocol = self._protocol([record["digest"] for record in records], records)
        result = summarised(
            np.array(scores, dtype=np.float64).reshape(len(scores), len(protocol.ngram_lengths)),
            np.array(stretches, dtype=np.int64).reshape(-1, 2),
            protocol,
            protocol.num_samples,
            protocol.seed,
            wall_time_s=0.0,
        )
        self.result = result
        self.config.metadata |= {
            "protocol": protocol.model_dump(mode="json"),
            "protocol_hash": result.protocol_hash,
            "estimator": result.estimator,
            "error_unit": result.error_unit,
            **{name: getattr(result, name) for name in COUNTS},
        }
        return result.brierlm

    def _values(self) -> dict[str, float | int]:
        result = self.result
        if result is None:
            raise RuntimeError("lm-eval aggregates brierlm first, since it is the first metric of every document")
        values: dict[str, float | int] = {"brierlm": result.brierlm, "brierlm_stderr": result.brierlm_se}
        for n, value, error in zip(result.protocol.ngram_lengths, result.brier, result.brier_se, strict=True):
            values |= {f"brier_{n}": value, f"brier_{n}_stderr": error}
        return values | {name: getattr(result, name) for name in COUNTS}


class BrierTokens(BrierTask):
    """``brierlm``: the n of Brier-n are tokens of the model, so only models of one tokenizer compare."""

    REQUEST = "sample_tokens"

    def _protocol(self, digests: Sequence[str], records: Sequence[Mapping[str, Any]]) -> Protocol:
        return token_protocol(self._settings, digests, records[0]["tokenizer_digest"])


class BrierText(BrierTask):
    """``brierlm_words``, or bytes: models of any tokenizer compare."""

    REQUEST = "sample_text"

    def _protocol(self, digests: Sequence[str], records: Sequence[Mapping[str, Any]]) -> TextProtocol:
        return made(TextProtocol, **self._settings, documents_digest=combined_digest(digests))
