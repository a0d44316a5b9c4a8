"""BrierLM of something that only samples, here bigrams counted on a text: python score_any_sampler.py"""

from collections.abc import Sequence

import numpy as np

import calm_bench as cb


class Bigrams:
    """Bytes drawn by how often each followed the one before."""

    vocab_size = 257
    chunk_size = 1

    def __init__(self, text: str) -> None:
        counts = np.full((257, 257), 0.01)
        tokens = list(text.encode())
        np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
        self.cumulative = np.cumsum(counts / counts.sum(axis=1, keepdims=True), axis=1)

    def sample(
        self, contexts: Sequence[np.ndarray], num_samples: int, horizon: int, seeds: Sequence[int]
    ) -> np.ndarray:
        drawn = np.empty((len(contexts), num_samples, horizon), dtype=np.int64)
        for row, (context, seed) in enumerate(zip(contexts, seeds, strict=True)):
            chance = np.random.default_rng(seed)
            last = np.full(num_samples, context[-1])
            for step in range(horizon):
                draws = chance.random(num_samples)
                last = np.array(
                    [np.searchsorted(self.cumulative[token], u) for token, u in zip(last, draws, strict=True)]
                )
                drawn[row, :, step] = np.minimum(last, 256)
        return drawn


texts = [module.__doc__ or "" for module in map(__import__, ["json", "csv", "ast", "heapq", "pickle", "turtle"])]
held_out, training = texts[::2], texts[1::2]
result = cb.score(Bigrams(" ".join(training)), held_out, context_length=64, first_position=8, position_stride=4)
print(f"BrierLM {result.brierlm:.2f} ± {result.brierlm_se:.2f} over {result.error_unit}s")
print(
    "Brier-1 to 4:",
    *(f"{100 * value:.2f}±{100 * error:.2f}" for value, error in zip(result.brier, result.brier_se, strict=True)),
)
print(f"{result.num_positions} positions, protocol {result.protocol_hash}")
