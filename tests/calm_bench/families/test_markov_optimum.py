"""Each family on a language whose truth is known: what it learns comes to the lowest loss that it can express.

Of a Markov chain of order 1 the lowest cross-entropy is its entropy rate. A model with independent softmaxes cannot
have it: given the token before the chunk, its j-th token has the distribution of a j-th step of the chain, whose
entropy is larger. A masked diffusion's bound is tight where the denoiser is exact, so its lowest is the entropy rate.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from calm_bench.config import LanguageModel, Markov
from calm_bench.corpora.markov import MarkovLanguage
from calm_bench.lm.folder import build_language_model

LETTERS, LENGTH, BATCH, STEPS = 6, 32, 32, 300
LANGUAGE = MarkovLanguage(Markov(order=1, alphabet_size=LETTERS, concentration=0.5))
CASES = [("patch", 2), ("patch", 4), ("patch", 8), ("multi_token", 2), ("multi_token", 4), ("block_diffusion", 2)]


def texts(count: int, seed: int) -> Tensor:
    """Stationary texts of the language, ids [count, LENGTH]."""
    random = np.random.default_rng(seed)
    letter = random.choice(LETTERS, size=count, p=LANGUAGE.stationary)
    found = [letter]
    for _ in range(LENGTH - 1):
        cumulative = LANGUAGE.transition[letter].cumsum(axis=-1)
        letter = (random.random((count, 1)) > cumulative).sum(axis=-1).clip(0, LETTERS - 1)
        found.append(letter)
    return torch.tensor(np.stack(found, axis=1))


def lowest_loss(kind: str, chunk_size: int) -> float:
    """Nats per token that no model of the family goes below."""
    if kind != "multi_token":
        return LANGUAGE.exact_cross_entropy()
    steps = [np.linalg.matrix_power(LANGUAGE.transition, j) for j in range(1, chunk_size + 1)]
    entropies = [-(LANGUAGE.stationary[:, None] * step * np.log(step)).sum() for step in steps]
    return float(np.mean(entropies))


def model_settings(kind: str, chunk_size: int) -> dict[str, Any]:
    return {
        "kind": kind,
        "chunk_size": chunk_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_layers": 1,
        "num_attention_heads": 2,
    }


@pytest.mark.parametrize(("kind", "chunk_size"), CASES)
def test_the_lowest_loss_is_reached(kind: str, chunk_size: int) -> None:
    model = build_language_model(LanguageModel.model_validate(model_settings(kind, chunk_size)), LETTERS, None, 0)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    generator = torch.Generator().manual_seed(0)
    for batch in texts(BATCH * STEPS, 1).split(BATCH):
        loss, _ = model.loss(batch, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    held_out = texts(1024, 2)
    with torch.no_grad():
        losses = torch.stack([model.loss(part, generator)[0] for part in held_out.split(64)])
    error = float(losses.std()) / len(losses) ** 0.5
    excess = float(losses.mean()) - lowest_loss(kind, chunk_size)
    assert -4 * error < excess < 0.02 + 4 * error


def test_independent_softmaxes_cannot_have_the_entropy_rate() -> None:
    assert lowest_loss("multi_token", 2) > LANGUAGE.exact_cross_entropy() + 0.1
    assert lowest_loss("multi_token", 4) > lowest_loss("multi_token", 2)
