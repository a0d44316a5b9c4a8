"""lm-eval's own model of transformers, with the prompt first: an answer is shorter where the prompt leaves less room.

lm-eval's ``hf`` takes the answer's length off what is read, whatever is left for the prompt: with 256 tokens for an
answer, as a task has that says nothing of it, a model of 300 positions reads the last 44 tokens of a question, and one
of 256 positions none at all (``AssertionError``).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs

from evals.generation_requests import LENGTHS, PROMPT_SHARE
from evals.protocol import EvaluationError

LOGGER = logging.getLogger(__name__)


class PromptFirstHFLM(HFLM):  # type: ignore[misc]
    """As :meth:`evals.harness_reader.HarnessReader.prompt` does it for the models of this project.

    Requests that fit are answered as ``hf`` answers them.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        """Arguments are those of ``hf``."""
        super().__init__(*arguments, **settings)
        self.shortened: set[str] = set()
        """Contexts of which the beginning was not read."""
        self.bounded: set[str] = set()
        """These, contexts whose answers are shorter than they were asked for, and texts read in several windows."""
        self._has_said = False

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """As ``hf``; a prompt that leaves less than a quarter of what is read for the answer, or less than
        ``max_gen_toks``, loses its beginning, and is counted (:attr:`shortened`)."""
        found: list[str] = super().generate_until([self._bounded(request) for request in requests], disable_tqdm)
        return found

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As ``hf``; counts the contexts of which the beginning was not read.

        Raises:
            EvaluationError: a continuation that is longer than the model can read.
        """
        for context, continuation in (request.args for request in requests):
            length = len(self.tok_encode(context + continuation))
            asked = length - len(self.tok_encode(context))
            if asked > self.max_length:
                raise EvaluationError(
                    f"a continuation of {asked} tokens cannot be scored within {self.max_length} tokens, which is what "
                    "is read of a text: the model's positions, or --max-length where that is less"
                )
            # The last token is predicted and not read.
            if length > self.max_length + 1:
                self.shortened.add(context)
                self.bounded.add(context)
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """As ``hf``; notes the texts that are read in several windows."""
        texts = (request.args[0] for request in requests)
        self.bounded |= {text for text in texts if len(self.tok_encode(text)) > self.max_length}
        found: list[float] = super().loglikelihood_rolling(requests, disable_tqdm)
        return found

    def _bounded(self, request: Instance) -> Instance:
        """``request`` itself, or one for an answer that fits behind its prompt."""
        context, settings = request.args
        wanted = int(normalize_gen_kwargs(dict(settings), self.max_gen_toks)["max_gen_toks"])
        length = int(self.tok_batch_encode([context])[0].shape[1])
        least = min(wanted, max(1, self.max_length - int(self.max_length * PROMPT_SHARE)))
        room = min(wanted, max(least, self.max_length - length))
        if length > self.max_length - room:
            self.shortened.add(context)
            self.bounded.add(context)
        if room == wanted:
            return request
        self.bounded.add(context)
        if not self._has_said:
            self._has_said = True
            LOGGER.warning(
                f"answers are shorter than the {wanted} tokens asked for (max_gen_toks) where the prompt leaves less "
                f"of {self.max_length}"
            )
        changed = {name: value for name, value in settings.items() if name not in LENGTHS} | {"max_gen_toks": room}
        return Instance(request.request_type, request.doc, (context, changed), request.idx)
