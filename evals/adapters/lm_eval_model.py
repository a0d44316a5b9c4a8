"""Any model of lm-eval, through its own text generation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from calm_bench.seeding import derive
from evals.adapters.lm_eval_internals import request_seed
from evals.protocol import EvaluationError
from evals.text_units import TextUnit

TOKENS_PER_WORD = 12
SPARE_TOKENS = 4
"""Drawn beyond what the unit may need, so that a character cut off at the end is not among those compared."""
GENERATION: Mapping[str, Any] = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
"""The model's own distribution: no temperature, no cut-off."""


class LmEvalTextSampler:
    """A :class:`evals.text_brier.TextSampler` out of ``generate_until`` of an lm-eval model.

    Only text comes back. So a fixed number of tokens is generated; a unit that they do not complete is the outcome
    None, be it that the text ended or that the tokens did not suffice. Bytes that are no whole character come back as
    U+FFFD. Which random numbers a continuation gets is the model's affair: seeds are set for those that draw with
    torch in this process, and draws then depend on what is generated together.

    Samples of one context are different requests, so that a cache or a model that merges equal requests returns
    independent draws: each has a stop string of its own, which no text contains.
    """

    def __init__(
        self, lm: Any, tokens_per_word: int = TOKENS_PER_WORD, generation: Mapping[str, Any] = GENERATION
    ) -> None:
        """
        Args:
            lm: an ``lm_eval.api.model.LM``. A cache around it is gone past.
            tokens_per_word: tokens generated for each word; a model of bytes needs more than the default.
            generation: what asks this model for plain sampling; some interfaces have other names for it.
        """
        from lm_eval.api.model import CachingLM

        self._lm = lm.lm if isinstance(lm, CachingLM) else lm
        self._tokens_per_word, self._generation = tokens_per_word, dict(generation)

    def sample_text(
        self, contexts: Sequence[str], num_samples: int, unit: TextUnit, num_units: int, seeds: Sequence[int]
    ) -> list[list[bytes]]:
        """See :class:`evals.text_brier.TextSampler`.

        Raises:
            EvaluationError: an empty context, which models of lm-eval cannot continue; or no text came back.
        """
        from lm_eval.api.instance import Instance

        if not all(contexts):
            raise EvaluationError(
                "a model of lm-eval cannot continue an empty context: set first_position to 1 or more"
            )
        per_unit = 1 if unit.name == "bytes" else self._tokens_per_word
        length = num_units * per_unit + SPARE_TOKENS
        drawn = []
        for index in range(num_samples):
            settings = {**self._generation, "max_gen_toks": length, "until": [f"<|calm-bench sample {index}|>"]}
            requests = [
                Instance(request_type="generate_until", doc={}, arguments=(context, dict(settings)), idx=number)
                for number, context in enumerate(contexts)
            ]
            seed = derive(0, "lm-eval", index, *seeds)
            with _seeded(self._lm, seed):
                texts = self._lm.generate_until(requests)
            if len(texts) != len(contexts) or not all(isinstance(text, str) for text in texts):
                raise EvaluationError(f"{type(self._lm).__name__}.generate_until did not return one text per request")
            drawn.append(texts)
        return [[texts[number].encode(errors="replace") for texts in drawn] for number in range(len(contexts))]


@contextmanager
def _seeded(lm: Any, seed: int) -> Iterator[None]:
    """Within, torch draws from ``seed``, and so does a server: lm-eval sends its constant seed with every request,
    which would make all samples the same. Afterwards all is as before."""
    import torch

    with torch.random.fork_rng(), request_seed(lm, seed):
        torch.manual_seed(seed)
        yield
