"""Score a trained model on any text: what ``calm-bench eval`` does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from calm_bench.config import Samples
from calm_bench.devices import set_tf32
from calm_bench.opening import open_network, open_tokenizer
from calm_bench.overrides import ConfigurationError
from evals.generation_requests import PROMPT_SHARE
from pipelines.scoring.evaluation_report import ScoredText
from pipelines.scoring.models import TrainedModel, is_transformers_model
from pipelines.scoring.stored_text import prepare_text, read_text, text_folder
from pipelines.store.store import Store

if TYPE_CHECKING:
    from lm_eval.api.model import LM

    from calm_bench.lm.base import ChunkLanguageModel
    from calm_bench.tokens import TokenStream
    from calm_bench.tokens.tokenizer import Tokenizer
    from evals.evaluate import BrierResult
    from evals.harness_reader import HarnessSettings
    from evals.protocol import Protocol
    from evals.samplers import Sampler
    from evals.task_score import TaskScore

Found = TypeVar("Found")
TEXT_POSITIONS = 16
"""Positions of each document where words or bytes are counted: more documents tell more than more positions."""
ROWS_OF_HF = 8
"""Texts that lm-eval's model ``hf`` reads together."""


def score_model(
    model: TrainedModel,
    store: Store,
    overrides: Sequence[str] = (),
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> BrierResult:
    """BrierLM of ``model`` under the protocol it was scored with before, changed by ``overrides``.

    A model without known origin is scored on the default corpus under the default protocol. Text is tokenised with the
    model's own tokenizer; corpus and tokens are kept in ``store``.

    Args:
        overrides: assignments to ``corpus.*`` and ``evaluation.*``.

    Raises:
        ConfigurationError: other keys, or values that do not fit.
        EvaluationError: the text is too short, or the protocol's positions do not fit the model's chunks.
    """
    return Scoring(model, store, overrides, device).brierlm(None, progress)


class Scoring:
    """A trained model, opened once, and the text that it is scored on."""

    def __init__(self, model: TrainedModel, store: Store, overrides: Sequence[str] = (), device: str = "cpu") -> None:
        """
        Args:
            model: of this project, a released checkpoint, or a causal model of transformers in a folder.
            overrides: assignments to ``corpus.*`` and ``evaluation.*``.

        Raises:
            ConfigurationError: as :func:`score_model`.
            WeightsError, TokenizerError: the model's folder cannot be read.
        """
        self.model, self.device = model, device
        set_tf32(device, True)
        self._store = store
        self.experiment, self._graph = prepare_text(model, store, overrides)
        if self.stream.vocab_size > self.sampler.vocab_size:
            what = model.folder if model.sampler is None else type(model.sampler).__name__
            raise ConfigurationError(
                f"the tokenizer has {self.stream.vocab_size} tokens, {what} only {self.sampler.vocab_size}: "
                "it is not the model's; --tokenizer names another"
            )

    @cached_property
    def network(self) -> ChunkLanguageModel | None:
        """The model, if it is one of this project's kinds."""
        if self.model.sampler is not None or is_transformers_model(self.model.folder):
            return None
        return open_network(self.model.folder, self.device, self.model.autoencoder)

    @cached_property
    def sampler(self) -> Sampler:
        """What BrierLM is measured on."""
        if self.model.sampler is not None:
            return self.model.sampler
        if self.network is not None:
            from evals.samplers import ModelSampler

            return ModelSampler(self.network, self.tokenizer.eos_id)
        from evals.adapters.hugging_face import HuggingFaceSampler

        opened = HuggingFaceSampler.open(self.model.folder, device=self.device)
        # The text's tokenizer: the model's own in the reading of this project, or the one that was named.
        return HuggingFaceSampler(opened.model, self.tokenizer)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return open_tokenizer(self.experiment.tokens.tokenizer)

    @cached_property
    def stream(self) -> TokenStream:
        """The tokens of the split that is scored."""
        return self._read(lambda stream: stream)

    def _read(self, work: Callable[[TokenStream], Found]) -> Found:
        """What ``work`` makes of the tokens of the split that is scored; those that are damaged are made anew first."""
        from calm_bench.tokens import TokenStream

        split = self.experiment.evaluation.split
        return read_text("tokens", self._graph, self._store, lambda folder: work(TokenStream.open(folder, split)))

    @property
    def text(self) -> ScoredText:
        """What is scored, for people and programs."""
        source, split = self.experiment.corpus.source, self.experiment.evaluation.split
        corpus = self._store.result(self._graph["corpus"])
        # Corpora from before copies were counted say nothing of them.
        copied = int(corpus.get("repeated", {}).get(split, 0))
        return ScoredText(source, split, str(corpus["digest"]), self.tokenizer.name, copied)

    def protocol(self, name: Literal["matched", "paper"] | None = None) -> Protocol:
        """The protocol called ``name`` on this text; unset means the one of ``evaluation.protocol``.

        Raises:
            EvaluationError: ``paper`` with windows that are no whole number of chunks, or too short.
        """
        from evals.protocol import protocol_for
        from evals.samplers import has_probabilities

        evaluation = self.experiment.evaluation
        if name is not None:
            evaluation = evaluation.model_copy(update={"protocol": name})
        is_token_model = self.sampler.chunk_size == 1 if self.network is None else has_probabilities(self.sampler)
        return protocol_for(
            evaluation,
            corpus_digest=self._store.result(self._graph["corpus"])["digest"],
            tokenizer_digest=self.tokenizer.digest,
            chunk_size=None if is_token_model else self.sampler.chunk_size,
        )

    def brierlm(
        self, protocol: Literal["matched", "paper"] | None = None, progress: Callable[[int, int], None] | None = None
    ) -> BrierResult:
        """BrierLM under ``protocol``; unset means the one of ``evaluation.protocol``.

        Raises:
            EvaluationError: the text is too short, or the protocol's positions do not fit the model's chunks.
        """
        from evals.evaluate import evaluate_brierlm

        # Files of an object store come while they are read, and only then are seen to be damaged.
        settings = self.protocol(protocol)
        return self._read(lambda stream: evaluate_brierlm(self.sampler, stream, settings, progress))

    def text_brierlm(
        self, unit: Literal["words", "bytes"], progress: Callable[[int, int], None] | None = None
    ) -> BrierResult:
        """BrierLM over the next words or bytes of the split's documents, comparable between tokenizers.

        Samples and seed are those of ``evaluation``; the rest is the default of :mod:`evals.text_protocol`.

        Raises:
            EvaluationError: documents too short, or contexts longer than the model's positions.
        """
        from calm_bench.corpora import read_documents
        from evals.adapters.token_text import TokenTextSampler
        from evals.text_brier import evaluate_text_brierlm, text_protocol_for

        evaluation = self.experiment.evaluation
        documents = read_text(
            "corpus", self._graph, self._store, lambda folder: list(read_documents(folder, evaluation.split))
        )
        settings = {"unit": unit, "num_samples": evaluation.num_samples, "seed": evaluation.seed}
        protocol = text_protocol_for(documents, **settings, max_positions=TEXT_POSITIONS)
        sampler = TokenTextSampler(self.sampler, self.tokenizer, getattr(self.sampler, "prefix", ()))
        return evaluate_text_brierlm(sampler, documents, protocol, progress)

    def tasks(
        self,
        specifications: Sequence[str],
        limit: int | None = None,
        settings: HarnessSettings | None = None,
        remark: Callable[[str], None] = lambda text: None,
        max_length: int | None = None,
    ) -> list[TaskScore]:
        """Scores of lm-eval tasks; a model of transformers is lm-eval's own ``hf`` then.

        Args:
            settings: of :class:`evals.harness.CalmBenchLM`; ``hf`` has likelihoods and takes no scorer.
            remark: as of :func:`evals.benchmarks.run_tasks`.
            max_length: tokens that a model of transformers reads; unset means all of its positions.

        Raises:
            ConfigurationError, EvaluationError, UnknownName: as :func:`evals.benchmarks.run_tasks`.
        """
        from evals.benchmarks import run_tasks

        corpus = self.experiment.corpus
        metadata = {
            "corpus": corpus.model_dump(mode="json"),
            "corpus_folder": str(text_folder("corpus", self._graph, self._store)),
        }
        return run_tasks(self._lm(settings, max_length), specifications, limit, metadata, remark)

    def texts(self, settings: Samples | None = None) -> list[dict[str, Any]]:
        """What the model writes after beginnings of held-out documents, at every temperature of ``settings``.

        Nothing for a sampler of one's own, which knows one temperature.
        """
        if self.model.sampler is not None:
            return []
        from pipelines.study.kinds.samples import prompts_of, write_texts

        settings = settings or Samples()
        positions: int | None = getattr(self.sampler, "max_positions", None)
        # Of few positions, some are left to write on.
        length = min(settings.prompt_tokens, max(1, int(PROMPT_SHARE * positions)) if positions else sys.maxsize)
        prompts = self._read(lambda stream: prompts_of(stream, settings.num_prompts, length))
        seed = self.experiment.evaluation.seed
        written = []
        for temperature in settings.temperatures:
            if self.network is None:
                written += _written_by_transformers(self.sampler, self.tokenizer, prompts, temperature, settings, seed)
            else:
                written += write_texts(self.network, self.tokenizer, prompts, temperature, settings, seed, self.device)
        return written

    def _lm(self, settings: HarnessSettings | None, max_length: int | None) -> LM:
        if self.model.sampler is not None:
            raise ConfigurationError(
                "tasks ask for likelihoods, and a sampler of one's own only draws: leave --tasks out, or write a "
                "family of models (docs/how-to/own-family.md)"
            )
        if self.network is not None:
            from evals.harness import CalmBenchLM

            return CalmBenchLM(self.network, self.tokenizer, settings)
        if settings is not None and settings.scorer not in (None, "exact"):
            raise ConfigurationError("a model of transformers has exact likelihoods: leave --scorer out")
        if self.experiment.tokens.tokenizer == "bytes":
            raise ConfigurationError(
                "lm-eval's model hf needs a Hugging Face tokenizer: save the model's into its folder, or name one "
                "(--tokenizer FOLDER)"
            )
        from evals.adapters.lm_eval_hf import PromptFirstHFLM

        positions: int | None = getattr(self.sampler, "max_positions", None)
        limits = [limit for limit in (max_length, positions) if limit is not None]
        return PromptFirstHFLM(
            pretrained=str(self.model.folder),
            tokenizer=self.experiment.tokens.tokenizer,
            device=self.device,
            dtype="float32" if self.device == "cpu" else "auto",
            batch_size=ROWS_OF_HF,
            trust_remote_code=False,
            max_length=min(limits, default=None),
        )


def _written_by_transformers(
    sampler: Any, tokenizer: Tokenizer, prompts: list[list[int]], temperature: float, settings: Samples, seed: int
) -> list[dict[str, Any]]:
    """As :func:`pipelines.study.kinds.samples.write_texts`, by the model's own ``generate``."""
    import torch

    from calm_bench.seeding import derive

    written = []
    for index, prompt in enumerate(prompts):
        room = settings.num_tokens if sampler.max_positions is None else sampler.max_positions - len(prompt)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(derive(seed, "samples", index))
            ids = sampler.model.generate(
                torch.tensor([prompt], device=sampler.model.device),
                attention_mask=torch.ones((1, len(prompt)), dtype=torch.long, device=sampler.model.device),
                do_sample=True,
                temperature=temperature,
                top_k=0,
                max_new_tokens=max(1, min(settings.num_tokens, room)),
                eos_token_id=tokenizer.eos_id,
                pad_token_id=tokenizer.eos_id,
            )[0, len(prompt) :].tolist()
        ended = tokenizer.eos_id in ids
        ids = ids[: ids.index(tokenizer.eos_id)] if ended else ids
        written.append(
            {
                "temperature": temperature,
                "prompt": tokenizer.decode(prompt),
                "text": tokenizer.decode(ids),
                "num_tokens": len(ids),
                "ended": ended,
                "head_evaluations": len(ids),
            }
        )
    return written
