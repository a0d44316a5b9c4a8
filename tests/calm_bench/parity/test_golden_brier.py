"""BrierLM under the paper's protocol against the reference's own numbers, with its recorded draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from calm_bench.config import Evaluation
from calm_bench.lm import Calm
from calm_bench.pretrained import load_released_calm
from evals.brier import Integers, brier_scores, brierlm
from evals.estimators import estimator_for
from evals.evaluate import Scoring
from evals.protocol import protocol_for
from tests.calm_bench.parity.reference_data import GOLDEN


class RecordedSampler:
    """The model with the reference's random numbers; a continuation for which it drew none ends in -1."""

    def __init__(self, model: Calm, golden: dict[str, Tensor]) -> None:
        self.model, self.golden = model, golden
        self.vocab_size, self.chunk_size = model.vocab_size, model.chunk_size

    @torch.no_grad()
    def continue_windows(
        self,
        windows: Integers,
        positions: Sequence[int],
        num_samples: int,
        horizon: int,
        seeds: Sequence[int],
        targets: Integers | None = None,
    ) -> Integers:
        assert (num_samples, len(windows)) == (2, 2)
        tokens, size = torch.from_numpy(windows), self.chunk_size
        first = self.golden["eval.rand"][:2].unflatten(1, (2, -1))  # [S, W, chunks - 1, noise]
        found = torch.full((2, len(positions), 2, horizon), -1)
        for index, position in enumerate(positions):
            chunk = position // size
            text = tokens[:, :position].repeat(2, 1)  # [S * W, position]
            for step in range(-(-horizon // size)):
                recorded = self.golden.get(f"eval.step_rand/i{chunk - 1}/j{step}")
                noise = first[:, :, chunk - 1] if step == 0 else recorded if recorded is None else recorded[:, :, 0]
                if noise is None:
                    break
                hidden = self.model.hidden_states(text)[:, -1]
                drawn = self.model.autoencoder.decode(self.model.head(hidden, noise.flatten(0, 1)[None] - 0.5)[0])
                text = torch.cat([text, drawn], dim=1)
                wanted = min(horizon - step * size, size)
                place = slice(step * size, step * size + wanted)
                found[:, index, :, place] = drawn[:, :wanted].unflatten(0, (2, 2)).transpose(0, 1)
        return found.numpy()

    def sample(self, contexts: Sequence[Integers], num_samples: int, horizon: int, seeds: Sequence[int]) -> Integers:
        raise AssertionError("windows are continued")


class Text:
    """The reference's evaluation batch as a text of two windows, and an end that no window reaches."""

    def __init__(self, windows: Tensor, vocab_size: int) -> None:
        self.tokens, self.vocab_size = windows.flatten().numpy(), vocab_size

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, span: slice, /) -> Integers:
        return self.tokens[span]

    @property
    def document_ends(self) -> Integers:
        return np.array([len(self.tokens)])

    def document_of(self, positions: Integers, /) -> Integers:
        return np.zeros_like(positions)


@pytest.mark.parametrize("name", ["energy_k1", "energy_k4"])
def test_the_reference_scores(name: str) -> None:
    golden = load_file(GOLDEN / name / "golden.safetensors")
    model = load_released_calm(GOLDEN / name / "model")
    windows = golden["eval.input_ids"]
    length = windows.shape[1]
    rules = protocol_for(Evaluation(protocol="paper", context_length=length), "corpus", "tokenizer", model.chunk_size)
    sampler, text = RecordedSampler(model, golden), Text(windows, model.vocab_size)
    scoring = Scoring(sampler, text, rules, estimator_for(sampler, rules))
    starts = np.array([0, length])
    scores, _ = scoring.score(starts, length, rules.positions, starts, at_once=2)
    assert len(scores) == {"energy_k1": 2 * 23, "energy_k4": 2 * 11}[name]
    expected = [golden[f"eval.brier{n}"].item() for n in (1, 2, 3, 4)]
    np.testing.assert_allclose(scores.mean(axis=0), expected, rtol=0, atol=1e-7)
    # The reference's fourth root of a negative product is 0; ours is 0 because a component is not positive.
    assert min(expected) < 0
    assert brierlm(scores.mean(axis=0)) == 0.0


@pytest.mark.parametrize("name", ["brier_fixed", "brier_fixed_k8"])
def test_given_predictions(name: str) -> None:
    """Chunks of four and of eight tokens, whose first four are scored."""
    golden = load_file(GOLDEN / "energy_k4" / "golden.safetensors")
    samples = torch.stack([golden[f"{name}.predictions_{s}"] for s in (1, 2)], dim=-2)
    scores = brier_scores(samples.numpy(), golden[f"{name}.targets"].numpy(), (1, 2, 3, 4))
    np.testing.assert_allclose(scores.mean(axis=(0, 1)), golden[f"{name}.brier"].numpy(), rtol=0, atol=1e-7)
