"""Cross-entropy of held-out text: exact where a model has a likelihood, else an upper bound.

CALM has no likelihood of its own, but its head and its autoencoder's decoder together define one: the probability of a
chunk x is the mean of ``prod_k p(x_k | z)`` over latents z that the head draws. With S draws the logarithm of that mean
is, in expectation, at most the true one (Jensen), so the cross-entropy computed here is an upper bound in expectation
that tightens as S grows. A masked diffusion has the bound that it is trained on; there S draws only lower its variance.

Shape letters: W windows, L tokens, n chunks, K tokens of a chunk, S draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from calm_bench.seeding import derive
from evals.brier import Floats, Integers
from evals.clusters import TokenSource, first_copies
from evals.stats import cluster_sums, delta_standard_errors

if TYPE_CHECKING:
    from torch import Tensor

    from calm_bench.lm.base import ChunkLanguageModel

DRAWS_AT_ONCE = 16384


@dataclass(frozen=True)
class CrossEntropy:
    """Nats per token of held-out text, with its standard error over documents."""

    value: float
    standard_error: float
    kind: Literal["exact", "bound"]
    num_tokens: int
    num_documents: int
    num_samples: int
    """Draws per chunk behind a bound; 0 where exact."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def cross_entropy(
    model: ChunkLanguageModel,
    stream: TokenSource,
    starts: Sequence[int],
    context_length: int,
    first_position: int,
    num_samples: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> CrossEntropy:
    """Cross-entropy of the tokens from ``first_position`` to the end of each window of ``context_length`` tokens.

    Args:
        model: in evaluation mode.
        starts: of the windows in ``stream``; each window's draws have a random stream of their own.
        first_position: a multiple of K.
        num_samples: S; not used where the likelihood is exact.
        progress: called with (windows done, windows in all).

    Raises:
        ValueError: positions that are not multiples of K, no windows, text of one document (copies included) only, or a
            model whose likelihood is not finite.
        NotFiniteWeights: the model's weights hold NaN or infinity.
    """
    import torch

    from calm_bench.finite import require_finite_weights
    from calm_bench.lm.exact import ExactModel

    if first_position % model.chunk_size or context_length % model.chunk_size or first_position < model.chunk_size:
        raise ValueError(
            f"first_position {first_position} and context_length {context_length} must be multiples of the chunk size "
            f"{model.chunk_size}, and not 0"
        )
    if not starts:
        raise ValueError("there are no windows to take a cross-entropy of")
    require_finite_weights(model.named_parameters())
    is_exact = isinstance(model, ExactModel)
    losses: list[Floats] = []
    targets: list[Integers] = []
    documents: list[Integers] = []
    for done, start in enumerate(starts, start=1):
        tokens = torch.from_numpy(stream[start : start + context_length]).to(next(model.parameters()).device)
        values = chunk_log_likelihoods(model, tokens, first_position, num_samples, derive(seed, "cross-entropy", start))
        losses.append(-values.double().cpu().numpy())
        positions = np.arange(first_position, context_length, model.chunk_size)
        targets.append(start + positions)
        documents.append(stream.document_of(start + positions))
        if progress is not None:
            progress(done, len(starts))
    per_chunk = np.concatenate(losses)
    if not np.isfinite(per_chunk).all():
        raise ValueError("the model gives held-out text a likelihood that is not finite")
    # Documents of equal tokens are one, as in the errors of BrierLM.
    first, _ = first_copies(stream, np.concatenate(documents), np.concatenate(targets))
    sums = cluster_sums(per_chunk[:, None], first)
    if len(sums.counts) < 2:
        raise ValueError("an error needs text of two documents or more")
    errors, _ = delta_standard_errors(sums)
    return CrossEntropy(
        value=float(sums.means[0]) / model.chunk_size,
        standard_error=float(errors[0]) / model.chunk_size,
        kind="exact" if is_exact else "bound",
        num_tokens=len(per_chunk) * model.chunk_size,
        num_documents=len(sums.counts),
        num_samples=0 if is_exact else num_samples,
    )


def chunk_log_likelihoods(
    model: ChunkLanguageModel, tokens: Tensor, first_position: int, num_samples: int, seed: int
) -> Tensor:
    """``[n]`` log-likelihood of each chunk of ``tokens [L]`` from ``first_position`` on, given all before it."""
    import torch

    from calm_bench.lm.exact import ExactModel

    with torch.no_grad():
        size = model.chunk_size
        hidden = model.hidden_states(tokens[None, :-size])[0, first_position // size - 1 :]
        targets = tokens[first_position:].view(-1, size)
        if isinstance(model, ExactModel):
            return model.log_likelihoods(hidden, targets, 0)
        generator = torch.Generator(device=tokens.device).manual_seed(seed)
        rows = max(1, DRAWS_AT_ONCE // num_samples)
        blocks = zip(hidden.split(rows), targets.split(rows), strict=True)
        return torch.cat([model.log_likelihoods(*block, num_samples, generator) for block in blocks])
