"""Our models inside lm-eval: text generation by the sampler, likelihoods by a scorer.

Importing this imports lm-eval; :func:`register` makes the model known to it as ``calm-bench``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from lm_eval.api.model import LM, CacheHook

from calm_bench.fingerprint import IDENTITY_LENGTH
from calm_bench.finite import NotFinite
from calm_bench.lm.base import ChunkLanguageModel
from calm_bench.model_code import model_code
from calm_bench.opening import Vocabulary, open_network, open_tokenizer, open_vocabulary, tokenizer_setting
from calm_bench.overrides import ConfigurationError
from calm_bench.registry import did_you_mean
from calm_bench.seeding import generator
from evals.generation_requests import GenerationRequest, read_request
from evals.harness_reader import HarnessReader, HarnessSettings
from evals.protocol import EvaluationError
from evals.scorer_choice import scorer_for
from evals.scorers import EXACT, SCORERS
from evals.scorers.scoring import Score, Text, score_texts

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from evals.samplers import ModelSampler

NAME = "calm-bench"
"""What lm-eval calls the model."""

CACHE_OWNER = "calm-bench model"
"""Entry of lm-eval's cache that says whose answers it holds."""
READING = 2
"""Counted up when a text is read in another way, so that no cache gives the answers of before."""
ROWS_AT_ONCE = 32
"""Texts that are generated together."""
_FROM_LM_EVAL = ("batch_size", "max_batch_size")
"""What lm-eval hands to every model. Batches here follow from memory, and results do not depend on them."""


class CalmBenchLM(LM):  # type: ignore[misc]
    """A trained model of this project, or a released checkpoint, as a model of lm-eval.

    Every random number is seeded by the text of its request, so neither order nor batches matter; equal requests in one
    call are numbered, so that repeats are independent samples.
    """

    def __init__(
        self, network: ChunkLanguageModel, vocabulary: Vocabulary, settings: HarnessSettings | None = None
    ) -> None:
        """
        Raises:
            ConfigurationError: a chunk model with the scorer ``exact``, or a token model with another.
        """
        super().__init__()
        self.settings = settings or HarnessSettings()
        self.network, self.vocabulary = network.eval(), vocabulary
        self.scorer = scorer_for(
            network.config.kind, network.likelihood, network.config.needs_autoencoder, self.settings.scorer
        )
        self.scores: dict[tuple[str, str], Score] = {}
        """Scores with their Monte Carlo errors, by (context, continuation); by (``""``, text) of rolling ones."""
        self.reader = HarnessReader(vocabulary, network.chunk_size, self.settings)
        self._device = next(network.parameters()).device

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: Mapping[str, Any], additional_config: Mapping[str, Any] | None = None
    ) -> Self:
        """As lm-eval calls it, with its ``model_args``.

        ``pretrained`` is a model's folder; ``tokenizer``, ``autoencoder`` and ``device`` are those of ``calm-bench
        eval``; the others are fields of :class:`HarnessSettings`.

        Raises:
            ConfigurationError: no folder, or an argument that does not exist.
            WeightsError, TokenizerError: the folder cannot be read.
        """
        given = {key: value for key, value in {**(additional_config or {}), **arg_dict}.items() if value is not None}
        for name in _FROM_LM_EVAL:
            given.pop(name, None)
        device, autoencoder = given.pop("device", "cpu"), given.pop("autoencoder", None)
        if "device" not in arg_dict and not torch.cuda.is_available():
            # lm-eval's command asks for a GPU unless told otherwise.
            device = "cpu"
        tokenizer, folder = given.pop("tokenizer", None), given.pop("pretrained", None)
        known = [field.name for field in fields(HarnessSettings)]
        for name in given:
            if name not in known:
                raise ConfigurationError(f"model_args has no {name!r}{did_you_mean(name, known)}")
        if folder is None:
            raise ConfigurationError("model_args needs the model's folder: pretrained=FOLDER")
        where = Path(str(folder)).expanduser()
        if (where / "model" / "config.json").is_file():
            where = where / "model"
        network = open_network(where, str(device), Path(autoencoder).expanduser() if autoencoder else None)
        return cls(network, _vocabulary(where, tokenizer), HarnessSettings(**given))

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: Mapping[str, Any] | None = None) -> Self:
        """:meth:`create_from_arg_obj` of ``key=value,key=value``."""
        from lm_eval.utils import simple_parse_args_string

        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Take lm-eval's cache of answers (``--use_cache``), which keeps them by their question alone.

        Raises:
            ConfigurationError: it holds answers of another model, or of this one under other settings.
        """
        answers: Any = cache_hook.dbdict
        if answers is not None:
            before = answers.get(CACHE_OWNER)
            if before != self.identity and len(answers):
                raise ConfigurationError(
                    f"the cache {answers.filename} holds answers of {'another' if before else 'an unknown'} model, or "
                    f"under other settings: name another file for this one, such as --use_cache answers-{self.identity}"
                )
            answers[CACHE_OWNER] = self.identity
        super().set_cache_hook(cache_hook)

    @cached_property
    def identity(self) -> str:
        """16 hex digits of all that answers depend on: weights, tokenizer, settings, and code from elsewhere of a
        scorer, a head or a family."""
        digest = hashlib.sha256(repr((type(self.network).__name__, self.network.chunk_size, self.settings)).encode())
        digest.update(f"reading {READING}".encode())
        digest.update(str(getattr(self.vocabulary, "digest", "")).encode())
        # Only where there is some: caches of other models stay theirs.
        for name, code in sorted(model_code(self.network.config).items()):
            digest.update(f"{name} {code}".encode())
        if self.scorer != EXACT:
            digest.update((SCORERS.code_digest(self.scorer) or "").encode())
        for name, tensor in self.network.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:IDENTITY_LENGTH]

    def chat_template(self, chat_template: bool | str = False) -> str:
        """No template: the models here continue texts, and their tokenizers read the marks of a chat as text.

        Raises:
            ConfigurationError: one is asked for (``--apply_chat_template``).
        """
        if chat_template:
            raise ConfigurationError(
                "a calm-bench model continues texts and was trained on no chat: leave --apply_chat_template out"
            )
        return ""

    @property
    def token_sampler(self) -> tuple[ModelSampler, Vocabulary]:
        """For tasks that ask for samples of tokens (:mod:`evals.adapters.lm_eval_requests`)."""
        from evals.samplers import ModelSampler

        return ModelSampler(self.network, self.vocabulary.eos_id), self.vocabulary

    @property
    def num_samples(self) -> int:
        """Draws of each chunk behind a score; 0 where scores are exact."""
        return 0 if self.scorer == EXACT else self.settings.num_samples

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes into its results."""
        counts = {"num_prompts_shortened": len(self.shortened)}
        return {"scorer": self.scorer, "num_samples": self.num_samples, **self._reading, **counts}

    @property
    def shortened(self) -> set[str]:
        """Contexts of which the beginning was not read."""
        return self.reader.shortened

    @property
    def bounded(self) -> set[str]:
        """Contexts and texts of which ``max_length`` decided what was read or written."""
        return self.reader.bounded

    @property
    def max_length(self) -> int:
        """Tokens that are read at most, prompt and answer together."""
        return self.settings.max_length

    @property
    def _reading(self) -> dict[str, Any]:
        return {name: getattr(self.settings, name) for name in ("max_length", "alignment", "seed")}

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """A score for every (context, continuation), and whether the continuation is the model's first choice.

        The score is exact for a token model, else the scorer's. Space at a context's end is moved to the continuation,
        as lm-eval's own models do it. An empty context is the beginning of a text, after the end of another; an empty
        continuation is certain: 0.

        Raises:
            EvaluationError: a continuation that is longer than ``max_length`` leaves to be read.
        """
        pairs = [tuple(request.args) for request in requests]
        texts = [self.reader.text(context, continuation) for context, continuation in pairs]
        scores = self._score(texts, self.scorer)
        self.scores |= dict(zip(pairs, scores, strict=True))
        answers = [(score.value, score.is_greedy) for score in scores]
        for pair, answer in zip(pairs, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", pair, answer)
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts in nats: exact for a token model, else the scorer ``decoder``'s.

        The latter is a lower bound in expectation (:func:`evals.scorers.decoder.decoder`), whichever scorer is set:
        the others do not estimate a likelihood. Texts longer than ``max_length`` are read in windows, as lm-eval's own
        models do it: each token is scored once, after at least one chunk, the last window after as much as fits.
        """
        strings = [request.args[0] for request in requests]
        parts = [self.reader.windows(string) for string in strings]
        windows = [text for own in parts for text in own]
        scores = iter(self._score(windows, EXACT if self.scorer == EXACT else "decoder"))
        found = []
        for string, own in zip(strings, parts, strict=True):
            score = _total([next(scores) for _ in own], self.num_samples)
            self.scores["", string] = score
            self.cache_hook.add_partial("loglikelihood_rolling", (string,), score.value)
            found.append(score.value)
        return found

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Texts up to a stop string, the end of the text, or ``max_gen_toks``.

        Greedy requests (no ``do_sample``, or temperature 0) get the most frequent of ``num_samples`` samples of each
        chunk: a chunk model cannot name its likeliest chunk, and this finds it as the number grows. A token model gets
        its likeliest token.

        The prompt is read first: an answer is shorter than ``max_gen_toks`` where the prompt leaves less of
        ``max_length``. Only a prompt that leaves less than a quarter of it, or less than ``max_gen_toks``, loses its
        beginning, and is counted (:attr:`shortened`).

        Raises:
            EvaluationError: settings that a sampler cannot follow, such as ``top_p``.
        """
        read = [read_request(*request.args) for request in requests]
        seen: Counter[GenerationRequest] = Counter()
        numbers = []
        for request in read:
            numbers.append(seen[request])
            seen[request] += 1
        texts = [""] * len(read)
        prompts = []
        for index, request in enumerate(read):
            prompt, room = self.reader.prompt(request)
            prompts.append(prompt)
            # Rows of a batch are given equal numbers of tokens.
            read[index] = replace(request, settings=replace(request.settings, max_tokens=room))
        for settings in dict.fromkeys(request.settings for request in read):
            alike = [index for index, request in enumerate(read) if request.settings == settings]
            for begin in range(0, len(alike), ROWS_AT_ONCE):
                batch = alike[begin : begin + ROWS_AT_ONCE]
                rows = [(read[index], prompts[index], numbers[index]) for index in batch]
                written = self._generate(rows)
                for index, text in zip(batch, written, strict=True):
                    texts[index] = text
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts

    def _generate(self, rows: Sequence[tuple[GenerationRequest, list[int], int]]) -> list[str]:
        from calm_bench.sampling.generate import generate_batch

        requests = [request for request, _, _ in rows]
        settings = requests[0].settings
        decoding = settings.decoding(self.network.likelihood != "exact", self.settings.num_samples)
        generators = [
            generator(self.settings.seed, "generate", request.context, number, device=self._device)
            for request, _, number in rows
        ]
        prompts = [prompt for _, prompt, _ in rows]

        def stop(row: int, tokens: list[int]) -> bool:
            return requests[row].is_complete(self.vocabulary.decode(tokens))

        try:
            written = generate_batch(
                self.network, prompts, settings.max_tokens, generators, self.vocabulary.eos_id, decoding, stop=stop
            )
        except NotFinite as error:
            raise EvaluationError(f"no text can be written: {error}") from error
        return [
            request.cut(self.vocabulary.decode(result.tokens))
            for request, result in zip(requests, written, strict=True)
        ]

    def _score(self, texts: Sequence[Text], scorer: str) -> list[Score]:
        # Equal texts have equal scores: the unconditional choices of a task, for instance.
        different = list(dict.fromkeys(texts))
        function = None if scorer == EXACT else SCORERS.get(scorer)
        try:
            scores = score_texts(self.network, different, function, self.settings.num_samples, self.settings.seed)
        except NotFinite as error:
            raise EvaluationError(f"no score can be given: {error}") from error
        found = dict(zip(different, scores, strict=True))
        return [found[text] for text in texts]


def register() -> None:
    """Make ``calm-bench`` a model of lm-eval; its own models must be registered first, or ``hf`` would be missing."""
    import lm_eval.models
    from lm_eval.api.registry import model_registry, register_model

    assert lm_eval.models is not None
    if NAME not in model_registry:
        register_model(NAME)(CalmBenchLM)


def _vocabulary(folder: Path, tokenizer: str | None) -> Vocabulary:
    setting = tokenizer or tokenizer_setting(folder)
    return open_vocabulary(folder) if setting is None else open_tokenizer(str(setting))


def _total(scores: Sequence[Score], num_samples: int) -> Score:
    return Score(
        sum(score.value for score in scores),
        sum(score.standard_error**2 for score in scores) ** 0.5,
        num_samples,
        sum(score.num_chunks for score in scores),
        all(score.is_greedy for score in scores),
    )
