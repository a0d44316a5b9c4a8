"""Text from prompts, chunk by chunk, at any temperature in (0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from calm_bench.finite import DeferredChecks, deferred_checks, require_finite_weights
from calm_bench.lm.base import ChunkLanguageModel
from calm_bench.lm.exact import ExactModel
from calm_bench.lm.fused import fused_backbone
from calm_bench.sampling.reader import Reader
from calm_bench.sampling.temperature import MAX_DRAWS, Decoding, Sampled, draw_once, draws_once, sample_chunks

__all__ = ["MAX_DRAWS", "Decoding", "Generated", "generate", "generate_batch"]


@dataclass(frozen=True)
class Generated:
    """One row's text, and what it cost."""

    tokens: list[int]
    """The new tokens, without the end-of-text token."""
    ended: bool
    """The model drew the end of the text; otherwise ``max_new_tokens`` stopped it."""
    head_evaluations: int
    """Samples of the head, rejected ones included; of the token model, steps."""
    decoder_evaluations: int
    """Latents decoded to tokens; none for the token model."""
    fell_back: bool
    """The prompt's last tokens were not reproduced within the allowed draws, and the chunks were aligned anew."""
    num_approximated: int
    """Chunks for which the exact temperature algorithm ran out of draws; see :class:`Decoding`."""
    acceptance: float = 0.0
    """Of these, the mean probability that one attempt of that algorithm succeeds, as far as their draws tell it."""


@dataclass
class _Row:
    """A text being written."""

    index: int
    prompt: list[int]
    known: list[int]
    """Tokens of the next chunk that the prompt already gives."""
    text: list[int]
    """What the model has read: whole chunks."""
    tokens: list[int] = field(default_factory=list)
    head_evaluations: int = 0
    decoder_evaluations: int = 0
    fell_back: bool = False
    num_approximated: int = 0
    acceptance: float = 0.0
    """Summed over the approximated chunks."""


def generate(
    model: ChunkLanguageModel,
    prompt_ids: Sequence[int],
    max_new_tokens: int,
    generator: Generator,
    eos_id: int,
    decoding: Decoding | None = None,
    on_tokens: Callable[[list[int]], None] | None = None,
) -> Generated:
    """:func:`generate_batch` of a single prompt; ``on_tokens`` gets each piece of new tokens as it is drawn, then an
    empty one."""
    report = None if on_tokens is None else lambda _, piece: on_tokens(piece)
    return generate_batch(model, [prompt_ids], max_new_tokens, [generator], eos_id, decoding, report)[0]


@torch.inference_mode()
def generate_batch(
    model: ChunkLanguageModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    generators: Sequence[Generator],
    eos_id: int,
    decoding: Decoding | None = None,
    on_tokens: Callable[[int, list[int]], None] | None = None,
    stop: Callable[[int, list[int]], bool] | None = None,
) -> list[Generated]:
    """Continue every prompt by at most ``max_new_tokens`` tokens, or until the end of the text is drawn.

    Chunks are aligned with a prompt's start. Its whole chunks are read; if r < K tokens are left over, the next chunk
    is sampled among those that begin with these r tokens, exactly, by rejection. If ``decoding.max_draws`` candidates
    hold none, the chunks are aligned with the prompt's end instead: its first r tokens are left out or, in a prompt
    shorter than a chunk, end-of-text tokens fill the chunk from the left. The result says so.

    A text starts after the end of another, so a prompt without a whole chunk is preceded by a chunk of end-of-text
    tokens. A row that has ended leaves the batch.

    On a CPU the layers' weights may be held twice meanwhile (:mod:`calm_bench.lm.fused` says when).

    Args:
        prompts: any number of tokens each, none included.
        generators: one per prompt, on the model's device. A row's text is a function of its prompt and its generator,
            up to the rounding of larger matrix products, whatever else is in the batch.
        decoding: how chunks are sampled; at temperature 1 if unset.
        on_tokens: called with a row's index and each piece of its new tokens as it is drawn, and with an empty piece
            when the row has finished.
        stop: asked, after each piece, with a row's index and all of its new tokens, whether they are enough.

    Returns:
        One result per prompt, in order.

    Raises:
        ValueError: a negative ``max_new_tokens``, too few generators, or a token the model does not have.
        NotFinite: the model's weights hold NaN or infinity, or it computes them; ``on_tokens`` gets nothing drawn from
            them.
    """
    _check(model, prompts, max_new_tokens, generators, eos_id)
    decoding = decoding or Decoding()
    rows = [_row(index, list(prompt), model.chunk_size, eos_id) for index, prompt in enumerate(prompts)]
    if max_new_tokens == 0 or not rows:
        return [_generated(row, ended=False) for row in rows]
    require_finite_weights(model.named_parameters())

    finished: dict[int, Generated] = {}
    # A chunk that a prompt begins gives fewer new tokens than others.
    most_chunks = 1 + -(-max_new_tokens // model.chunk_size)
    fused = fused_backbone(model.backbone, len(rows), most_chunks)
    reader = Reader(model, [row.text for row in rows], most_chunks, fused)
    while True:
        known = [row.known for row in rows]
        own = [generators[row.index] for row in rows]
        if draws_once(model, decoding, known):
            with deferred_checks() as checks:
                chunks = draw_once(model, reader.hidden, decoding, own, known)
            draws = _drawn_once(chunks, checks, 0 if isinstance(model, ExactModel) else 1)
        else:
            # Candidates that are searched are checked as they are drawn: a search through wrong ones takes long.
            sampled = sample_chunks(model, reader.hidden, decoding, own, known)
            chunks, draws = sampled.chunks, _sampled(sampled)
        continuing = _extend(rows, draws, max_new_tokens, eos_id, finished, on_tokens, stop)
        if not continuing:
            return [finished[index] for index in range(len(prompts))]
        realigned = [row for row in (rows[index] for index in continuing) if row.known]
        for row in realigned:
            _align_with_the_end(row, model.chunk_size, eos_id)
        if realigned:
            reader = Reader(model, [rows[index].text for index in continuing], most_chunks, fused)
        else:
            if len(continuing) < len(rows):
                reader.keep(continuing)
                chunks = chunks[continuing]
            reader.read(chunks)
        rows = [rows[index] for index in continuing]


class _Draw(NamedTuple):
    """A row's next chunk, as in :class:`Sampled`, on this side of a transfer."""

    chunk: list[int]
    found: bool
    approximated: bool
    head_evaluations: int
    decoder_evaluations: int
    acceptance: float


def _drawn_once(chunks: Tensor, checks: DeferredChecks, decoder_evaluations: int) -> Iterator[_Draw]:
    """Of chunks [R, K], by one transfer with what is to be checked: each would make a GPU wait.

    Raises:
        NotFinite: a check says so.
    """
    finite = [flag.long().expand(len(chunks), 1) for flag, _ in checks.noted]
    fetched = torch.cat([*finite, chunks], dim=1).tolist()
    checks.settle(fetched[0][: len(finite)])
    return (_Draw(row[len(finite) :], True, False, 1, decoder_evaluations, 0.0) for row in fetched)


def _sampled(sampled: Sampled) -> Iterator[_Draw]:
    flags = [sampled.found, sampled.approximated, sampled.head_evaluations, sampled.decoder_evaluations]
    fetched = torch.cat([torch.stack(flags, dim=1).long(), sampled.chunks], dim=1).tolist()
    return (
        _Draw(chunk, bool(found), bool(approximated), heads, decoders, likely)
        for (found, approximated, heads, decoders, *chunk), likely in zip(
            fetched, sampled.acceptance.tolist(), strict=True
        )
    )


def _row(index: int, prompt: list[int], chunk_size: int, eos_id: int) -> _Row:
    whole = len(prompt) - len(prompt) % chunk_size
    return _Row(index, prompt, known=prompt[whole:], text=prompt[:whole] or [eos_id] * chunk_size)


def _extend(
    rows: list[_Row],
    draws: Iterable[_Draw],
    max_new_tokens: int,
    eos_id: int,
    finished: dict[int, Generated],
    on_tokens: Callable[[int, list[int]], None] | None,
    stop: Callable[[int, list[int]], bool] | None,
) -> list[int]:
    """Add the sampled chunks to the rows; the places of those that go on. A row without a chunk keeps its ``known``."""
    continuing = []
    for index, (row, draw) in enumerate(zip(rows, draws, strict=True)):
        row.head_evaluations += draw.head_evaluations
        row.decoder_evaluations += draw.decoder_evaluations
        row.num_approximated += draw.approximated
        row.acceptance += draw.acceptance
        if not draw.found:
            continuing.append(index)
            continue
        piece = draw.chunk[len(row.known) :][: max_new_tokens - len(row.tokens)]
        row.text.extend(draw.chunk)
        row.known = []
        ended = eos_id in piece
        if ended:
            piece = piece[: piece.index(eos_id)]
        row.tokens += piece
        if piece and on_tokens is not None:
            on_tokens(row.index, piece)
        enough = stop is not None and stop(row.index, row.tokens)
        if ended or enough or len(row.tokens) == max_new_tokens:
            finished[row.index] = _generated(row, ended)
            if on_tokens is not None:
                on_tokens(row.index, [])
        else:
            continuing.append(index)
    return continuing


def _align_with_the_end(row: _Row, chunk_size: int, eos_id: int) -> None:
    left_over = len(row.known)
    if len(row.prompt) > chunk_size:
        row.text = row.prompt[left_over:]
    else:
        row.text = [eos_id] * (chunk_size - left_over) + row.prompt
    row.known, row.fell_back = [], True


def _generated(row: _Row, ended: bool) -> Generated:
    acceptance = row.acceptance / max(1, row.num_approximated)
    return Generated(
        row.tokens,
        ended,
        row.head_evaluations,
        row.decoder_evaluations,
        row.fell_back,
        row.num_approximated,
        acceptance,
    )


def _check(
    model: ChunkLanguageModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    generators: Sequence[Generator],
    eos_id: int,
) -> None:
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens {max_new_tokens} must not be negative")
    if len(generators) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts need as many generators, found {len(generators)}")
    for token in [eos_id, *(token for prompt in prompts for token in prompt)]:
        if not 0 <= token < model.vocab_size:
            raise ValueError(f"token {token} is not in the model's vocabulary of {model.vocab_size}")
