"""Text from a trained model: what ``calm-bench generate`` does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from calm_bench.devices import set_tf32
from calm_bench.opening import Vocabulary, open_network, open_vocabulary
from calm_bench.overrides import ConfigurationError
from pipelines.common.screen import bearable
from pipelines.scoring.models import TrainedModel

if TYPE_CHECKING:
    from calm_bench.sampling.generate import Decoding, Generated

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a character is decoded to while some of its bytes are still missing."""


def continue_texts(
    model: TrainedModel,
    prompts: Sequence[str],
    max_new_tokens: int,
    seed: int,
    decoding: Decoding,
    device: str = "cpu",
    write: Callable[[str], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> list[str]:
    """What ``model`` writes after each prompt. A prompt gets the same text whatever other prompts are given with it.

    Args:
        write: given prompts and texts while they are drawn, one prompt after the other.
        say: told what the texts cost, and where an approximation stood in.

    Raises:
        WeightsError, TokenizerError: the folder cannot be read.
        ConfigurationError: a prompt holds a token that the model does not have, or is no text.
    """
    from calm_bench.sampling.generate import generate_batch
    from calm_bench.seeding import generator

    set_tf32(device, True)
    vocabulary = open_vocabulary(model.folder, model.tokenizer)
    network = open_network(model.folder, device, model.autoencoder)
    encoded = [vocabulary.encode(_checked(prompt)) for prompt in prompts]
    for token in (token for ids in encoded for token in ids):
        if not 0 <= token < network.vocab_size:
            raise ConfigurationError(f"token {token} is not in the model's vocabulary of {network.vocab_size}")
    # From the prompt rather than its index, so that it is continued as it would be alone; equal prompts are numbered.
    generators = [
        generator(seed, "generate", prompt, list(prompts[:index]).count(prompt), device=device)
        for index, prompt in enumerate(prompts)
    ]
    stream = _Stream(prompts, vocabulary, write or (lambda _: None))
    results = generate_batch(
        network, encoded, max_new_tokens, generators, vocabulary.eos_id, decoding, on_tokens=stream.add
    )
    if say is not None:
        _report(results, decoding, network.chunk_size, say)
    return [vocabulary.decode(result.tokens) for result in results]


def _checked(prompt: str) -> str:
    """``prompt``, if it is text: a command line may hold any bytes, which Python keeps as lone surrogates.

    Raises:
        ConfigurationError: it is not.
    """
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        around = bearable(prompt[max(0, error.start - 20) : error.start + 20], "ascii")
        raise ConfigurationError(
            f"a prompt is no text in UTF-8, at '{around}': convert it, as with iconv -f LATIN1 -t UTF-8"
        ) from None
    return prompt


def _report(results: Sequence[Generated], decoding: Decoding, chunk_size: int, say: Callable[[str], None]) -> None:
    tokens = sum(len(result.tokens) for result in results)
    heads = sum(result.head_evaluations for result in results)
    decoders = sum(result.decoder_evaluations for result in results)
    say(f"{decoding.label}: {tokens} tokens, {heads} head and {decoders} decoder evaluations")
    if any(result.fell_back for result in results):
        say(
            f"a prompt does not end at a multiple of the model's {chunk_size} tokens, and the model finds "
            "its last tokens unlikely: the chunks were aligned with the prompt's end instead"
        )
    approximated = sum(result.num_approximated for result in results)
    if approximated:
        likely = sum(result.num_approximated * result.acceptance for result in results) / approximated
        say(_approximated(approximated, likely, decoding))


def _approximated(count: int, acceptance: float, decoding: Decoding) -> str:
    """What stood in for the exact algorithm at ``count`` chunks, why, and what it would have taken there."""
    limit = decoding.max_draws if decoding.method == "exact" else decoding.candidates
    more = "--max-draws allows more" if decoding.method == "exact" else "--method exact draws more"
    needed = "more draws than these can tell" if acceptance == 0 else f"some {_attempts(acceptance)} attempts a chunk"
    return (
        f"{count} chunks were not accepted within {limit} draws and were chosen among these by the batch "
        f"approximation; {more}, and would take {needed}"
    )


def _attempts(acceptance: float) -> str:
    """How often one tries until a thing of that probability happens, to two digits: ``1,200``."""
    number = 1 / acceptance
    digits = 1 - math.floor(math.log10(number))
    return f"{round(number, digits):,.0f}"


class _Stream:
    """Writes texts that are drawn side by side one after the other, each as early as possible."""

    def __init__(self, prompts: Sequence[str], vocabulary: Vocabulary, write: Callable[[str], None]) -> None:
        self._prompts, self._vocabulary, self._write = prompts, vocabulary, write
        self._tokens: list[list[int]] = [[] for _ in prompts]
        self._finished = [False] * len(prompts)
        self._current = 0
        self._written = ""
        self._write(prompts[0])

    def add(self, row: int, piece: list[int]) -> None:
        """A row's new tokens; an empty piece is its last."""
        self._tokens[row] += piece
        self._finished[row] = not piece
        if row == self._current:
            self._show()

    def _show(self) -> None:
        while True:
            text = self._vocabulary.decode(self._tokens[self._current])
            stable = text if self._finished[self._current] else text.rstrip(_UNFINISHED)
            self._write(stable[len(self._written) :])
            self._written = stable
            if not self._finished[self._current]:
                return
            self._write("\n")
            self._current += 1
            if self._current == len(self._prompts):
                return
            self._written = ""
            self._write("\n" + self._prompts[self._current])
