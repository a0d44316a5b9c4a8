"""Numbers that models of several families hold at once, in closed form, and the limits that bound them.

:mod:`calm_bench.memory` makes bytes of them and has the symbols.
"""

from __future__ import annotations

from typing import Literal

from calm_bench.config import LanguageModel
from calm_bench.logit_parts import logit_parts

Device = Literal["cpu", "cuda"]
MAX_LOGITS = 1 << 24
MAX_LOGITS_ON_GPU = 1 << 29
CACHED_LOGITS = 1 << 22
CACHED_LOGITS_ON_GPU = 1 << 26
"""As in :mod:`calm_bench.blockwise`, which cannot be imported without torch; a test compares them."""


def cross_entropy_peak(rows: float, width: int, vocab_size: int, device: Device) -> float:
    """Numbers of :func:`calm_bench.blockwise.cross_entropy`: the gradients of the inputs and of the weights, and the
    logits of a part (on a GPU, of a block), which become the gradient. On a GPU their logarithms and, since they are
    bf16, casts stand beside them."""
    whole = rows * vocab_size
    if device == "cpu":
        at_once = 1.0 * vocab_size * max(logit_parts(max(1, min(int(rows), MAX_LOGITS // vocab_size)), vocab_size))
    else:
        at_once = 2.5 * min(whole, MAX_LOGITS_ON_GPU)
    return at_once + rows * width + vocab_size * width


def logits_held(samples: int, vocab_size: int, device: Device) -> float:
    """Logits that are held at once while ``samples`` tokens are drawn or decoded."""
    logits = float(max(CACHED_LOGITS if device == "cpu" else CACHED_LOGITS_ON_GPU, 128 * vocab_size))
    return min(logits, samples * float(vocab_size))


def backbone_kept(model: LanguageModel, num_layers: int | None = None) -> float:
    """Numbers that a backward pass needs of a row: two norms with input and result, q, k, v, attention, SwiGLU.

    Args:
        num_layers: layers that keep them; unset, all.
    """
    d = model.hidden_size
    return (model.num_layers if num_layers is None else num_layers) * (11.0 * d + 4.0 * model.intermediate_size) + 3 * d


def chunk_input_kept(model: LanguageModel) -> float:
    """Numbers kept of a chunk's embeddings and of the MLP that makes one vector of them."""
    return model.hidden_size * (model.chunk_size + 2 + 2 + 1 + 1.0)
