"""Scores of whole continuations: read the text once, teacher-forced, and add up the scores of its chunks.

Shape letters: B texts, n backbone steps, Q scored chunks, K tokens of a chunk, d hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from calm_bench.finite import require_finite, require_finite_weights
from calm_bench.lm.base import ChunkLanguageModel
from calm_bench.lm.calm import Calm
from calm_bench.lm.exact import ExactModel
from calm_bench.seeding import derive
from evals.scorers.draws import Chunks, Draws
from evals.scorers.estimate import Scorer

TOKENS_AT_ONCE = 1 << 13
"""Tokens that the backbone reads together, padding included."""


@dataclass(frozen=True)
class Text:
    """A text of which a part is to be scored."""

    tokens: tuple[int, ...]
    """Chunks are counted from its first token."""
    start: int
    """The scored tokens are those from here on; at least one whole chunk stands before them."""
    name: str
    """Seeds the draws: texts of one name get the same random numbers for chunks of the same number, so choices after
    one context differ by what they say and not by luck."""


@dataclass(frozen=True)
class Score:
    """The score of a continuation."""

    value: float
    """Larger is likelier; in nats for models with a likelihood and for the scorers that estimate one."""
    standard_error: float
    """How far other draws would move it (one standard deviation); 0 if it is exact."""
    num_samples: int
    """Draws of each chunk; 0 if it is exact."""
    num_chunks: int
    """Chunks that were scored; tokens, for a model with a likelihood."""
    is_greedy: bool
    """The model's first choice throughout: of a chunk model, the most frequent of the draws."""


@torch.no_grad()
def score_texts(
    model: ChunkLanguageModel, texts: Sequence[Text], scorer: Scorer | None, num_samples: int, seed: int = 0
) -> list[Score]:
    """A score of every text's part, in order; none depends on the other texts, up to the rounding of larger products.

    Args:
        scorer: of CALM; models of softmaxes have likelihoods.
        num_samples: S, draws of each chunk, at least 2.

    Raises:
        ValueError: a chunk model without a scorer, too few samples, or a part with nothing before it.
        NotFinite: the model computed NaN, or its weights hold it.
    """
    if isinstance(model, Calm) and (scorer is None or num_samples < 2):
        raise ValueError("a chunk model has no likelihood: it is scored by a scorer, from at least 2 draws of a chunk")
    for text in texts:
        if text.start < model.chunk_size:
            raise ValueError(f"a scored part needs {model.chunk_size} tokens before it, found {text.start}")
    require_finite_weights(model.named_parameters())
    found: dict[int, Score] = {}
    for indices in _batches(texts, model.chunk_size):
        batch = [texts[index] for index in indices]
        hidden = _hidden_states(model, batch)
        if isinstance(model, ExactModel):
            scores = _exact(model, batch, hidden)
        else:
            assert isinstance(model, Calm)
            assert scorer is not None
            scores = _sampled(model, batch, hidden, scorer, num_samples, seed)
        found.update(zip(indices, scores, strict=True))
    return [found[index] for index in range(len(texts))]


def _batches(texts: Sequence[Text], chunk_size: int) -> Iterator[list[int]]:
    """Texts of similar lengths together; those with nothing to score need not be read, and come with the shortest."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index].tokens))
    batch: list[int] = []
    for index in order:
        longest = len(texts[index].tokens)
        if batch and longest * (len(batch) + 1) > TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _hidden_states(model: ChunkLanguageModel, texts: Sequence[Text]) -> Tensor:
    """[B, n, d]; step p has read chunks 0 to p. Texts are padded at their end, where no earlier step looks."""
    size = model.chunk_size
    # The last chunk is predicted and not read.
    lengths = [max(1, -(-len(text.tokens) // size) - 1) * size for text in texts]
    longest = max(lengths)
    rows = [[*text.tokens[:length], *[0] * (longest - length)] for text, length in zip(texts, lengths, strict=True)]
    device = next(model.parameters()).device
    hidden = model.hidden_states(torch.tensor(rows, device=device))
    require_finite(hidden, "hidden states")
    return hidden


def _exact(model: ExactModel, texts: Sequence[Text], hidden: Tensor) -> list[Score]:
    size = model.chunk_size
    # The chunks that hold scored tokens; the first may begin with tokens of the context, the last be filled up.
    whole = [range(text.start // size, -(-len(text.tokens) // size)) for text in texts]
    states, chunks = [], []
    for row, text, own in zip(hidden, texts, whole, strict=True):
        if text.start < len(text.tokens):
            states.append(row[own.start - 1 : own.stop - 1])
            known = torch.tensor(text.tokens[own.start * size :], dtype=torch.long, device=hidden.device)
            chunks.append(functional.pad(known, (0, own.stop * size - len(text.tokens))).view(-1, size))
    if not states:
        return [Score(0.0, 0.0, 0, 0, True) for _ in texts]
    found, likeliest = model.log_probabilities(torch.cat(states), torch.cat(chunks))
    log_probabilities, is_best = found.flatten(), (likeliest == torch.cat(chunks)).flatten()
    scores, begin = [], 0
    for text, own in zip(texts, whole, strict=True):
        count = len(text.tokens) - text.start
        if not count:
            scores.append(Score(0.0, 0.0, 0, 0, True))
            continue
        first = begin + text.start - own.start * size
        value = float(log_probabilities[first : first + count].double().sum())
        scores.append(Score(value, 0.0, 0, count, bool(is_best[first : first + count].all())))
        begin += len(own) * size
    return scores


def _sampled(
    model: Calm, texts: Sequence[Text], hidden: Tensor, scorer: Scorer, num_samples: int, seed: int
) -> list[Score]:
    size = model.chunk_size
    indices = [
        (row, chunk)
        for row, text in enumerate(texts)
        for chunk in range(text.start // size, -(-len(text.tokens) // size))
        if text.start < len(text.tokens)
    ]
    values, variances = [0.0] * len(texts), [0.0] * len(texts)
    counts, greedy = [0] * len(texts), [True] * len(texts)
    if indices:
        chunks = _chunks(texts, indices, hidden, size, seed)
        done = iter(indices)
        for block in chunks.blocks(num_samples):
            draws = Draws(model, block, num_samples)
            estimate = scorer(draws)
            columns = zip(
                estimate.values.tolist(), estimate.variances.tolist(), draws.is_likeliest.tolist(), strict=True
            )
            for value, variance, likeliest in columns:
                row, _ = next(done)
                values[row] += value
                # Chunks have draws of their own, so their errors are independent.
                variances[row] += variance
                counts[row] += 1
                greedy[row] = greedy[row] and likeliest
    return [
        Score(value, math.sqrt(variance), num_samples, count, likeliest)
        for value, variance, count, likeliest in zip(values, variances, counts, greedy, strict=True)
    ]


def _chunks(texts: Sequence[Text], indices: Sequence[tuple[int, int]], hidden: Tensor, size: int, seed: int) -> Chunks:
    tokens, begins, ends, seeds = [], [], [], []
    for row, chunk in indices:
        text = texts[row]
        known = list(text.tokens[chunk * size : (chunk + 1) * size])
        tokens.append(known + [0] * (size - len(known)))
        begins.append(max(0, text.start - chunk * size))
        ends.append(len(known))
        seeds.append(derive(seed, "score", text.name, chunk - text.start // size))
    device = hidden.device
    rows, steps = zip(*indices, strict=True)
    return Chunks(
        hidden[list(rows), [step - 1 for step in steps]],
        torch.tensor(tokens, device=device),
        torch.tensor(begins, device=device),
        torch.tensor(ends, device=device),
        seeds,
    )
