"""Probes of the autoencoder against what is known of hand-made latents."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Generator, Tensor

from calm_bench.autoencoder import Autoencoder
from calm_bench.autoencoder.probe import (
    accuracy,
    accuracy_under_noise,
    accuracy_when_quantised,
    collapsed_dimensions,
    probe,
    quantised,
)
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import Training
from calm_bench.finite import NotFinite

K, Z, V = 2, 4, 16
CHUNKS = torch.randint(V, (5000, K), generator=Generator().manual_seed(0))
STD = 0.25


class Grid(Autoencoder):
    """Latent dimension k is token k on a grid from -1 to 1; the others say nothing. Decoding takes the nearest."""

    def __init__(self) -> None:
        config = AutoencoderConfig(latent_size=Z, hidden_size=8, intermediate_size=8, training=Training(num_steps=1))
        super().__init__(config, K, V)
        self.encoder.forward = self.posterior  # type: ignore[assignment,method-assign]

    def posterior(
        self, chunks: Tensor, dropped: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        mean = torch.zeros(len(chunks), Z)
        mean[:, :K] = 2 * chunks / (V - 1) - 1
        log_std = torch.zeros(len(chunks), Z)
        log_std[:, :K] = math.log(STD)
        return mean, log_std

    def decode(self, latents: Tensor, context: Tensor | None = None) -> Tensor:
        return ((latents[..., :K] + 1) / 2 * (V - 1)).round().clamp(0, V - 1).long()


@pytest.fixture(scope="module")
def model() -> Grid:
    return Grid()


def expected_accuracy(std: float) -> float:
    """P(the nearest grid point is the right one); the two end points have one neighbour only."""
    inside = math.erf(1 / (V - 1) / std / math.sqrt(2))
    return ((V - 2) * inside + 2 * (1 + inside) / 2) / V


def test_accuracy_under_noise_is_that_of_the_closed_form(model: Grid) -> None:
    levels = (0.0, 0.05, 0.1, 0.5)
    points = accuracy_under_noise(model, CHUNKS, levels, Generator().manual_seed(1))
    assert [point.level for point in points] == list(levels)
    assert points[0].accuracy.value == 1
    for point in points[1:]:
        found = point.accuracy
        assert found.num_tokens == 2 * len(CHUNKS)
        assert abs(found.value - expected_accuracy(point.level)) < 4 * found.standard_error
        # The two tokens of a chunk are independent here, so the error is the binomial one.
        binomial = math.sqrt(found.value * (1 - found.value) / found.num_tokens)
        assert found.standard_error == pytest.approx(binomial, rel=0.05)


def test_accuracy_of_the_posterior_uses_its_own_noise(model: Grid) -> None:
    found = accuracy(model, CHUNKS, Generator().manual_seed(2))
    assert abs(found.value - expected_accuracy(STD)) < 4 * found.standard_error
    everything = accuracy(model, CHUNKS)
    assert (everything.value, everything.standard_error) == (1.0, 1 / everything.num_tokens)


def test_the_error_counts_a_chunk_as_one_observation() -> None:
    class Alike(Grid):
        """All tokens of a chunk come back, or none."""

        def decode(self, latents: Tensor, context: Tensor | None = None) -> Tensor:
            tokens = super().decode(latents, context)
            return tokens + (tokens[..., :1] % 4 == 0)

    found = accuracy(Alike(), CHUNKS)
    assert found.standard_error == pytest.approx(math.sqrt(found.value * (1 - found.value) / len(CHUNKS)), rel=1e-3)


def test_bits_are_enough_from_where_every_token_has_a_cell_of_its_own(model: Grid) -> None:
    points = accuracy_when_quantised(model, CHUNKS, range(1, 9))
    assert [point.level for point in points] == [1, 2, 3, 4, 5, 6, 7, 8]
    # 2^b cells on V = 16 grid points: below 4 bits one point of each cell at most is nearest to its middle.
    for point in points:
        assert point.accuracy.value == pytest.approx(min(1.0, 2**point.level / V), abs=0.03)


def test_quantisation_stays_within_half_a_cell_and_has_two_to_the_b_values() -> None:
    values = torch.rand(1000, 3, generator=Generator().manual_seed(0)) * torch.tensor([1.0, 10.0, 0.0]) - 4
    low, high = values.amin(0), values.amax(0)
    for bits in (1, 3, 8):
        found = quantised(values, low, high, bits)
        assert torch.all((found - values).abs() <= (high - low) / 2 ** (bits + 1) + 1e-5)
        assert len(found[:, 0].unique()) == min(2**bits, 1000) or bits == 8
    torch.testing.assert_close(quantised(values, low, high, 1)[:, 2], values[:, 2])


def test_dimensions_that_equal_the_prior_are_counted(model: Grid) -> None:
    found = collapsed_dimensions(model, CHUNKS)
    assert (found.value, found.num_chunks) == (Z - K, len(CHUNKS))
    assert found.standard_error < 1e-6
    second_moment = (2 * torch.arange(V) / (V - 1) - 1).square().mean().item()
    expected = 0.5 * (second_moment + STD**2 - 1) - math.log(STD)
    assert found.kl == pytest.approx([expected, expected, 0, 0], abs=0.01)
    # With the threshold on the value itself, each of the two may lie on either side.
    unsure = collapsed_dimensions(model, CHUNKS, threshold=sum(found.kl[:2]) / 2)
    assert 0.1 < unsure.standard_error <= math.sqrt(0.5)


def test_a_probe_is_bounded_repeatable_and_json(model: Grid) -> None:
    state = torch.get_rng_state()
    found = probe(model, CHUNKS, seed=3, max_tokens=2001)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.posterior.num_tokens == found.bits[0].accuracy.num_tokens == 2000
    assert found == probe(model, CHUNKS, seed=3, max_tokens=2001)
    assert found != probe(model, CHUNKS, seed=4, max_tokens=2001)
    assert json.loads(json.dumps(found.to_dict()))["bits"][7]["level"] == 8
    with pytest.raises(ValueError, match="less than one chunk of 2"):
        probe(model, CHUNKS, seed=3, max_tokens=1)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    """Their latents decode to tokens like any others, which are seldom those of the text."""
    model = Grid()
    with torch.no_grad():
        model.decoder.expand.bias[0] = value
    with pytest.raises(NotFinite, match=r"the autoencoder's weights \(decoder.expand.bias\) are not finite"):
        probe(model, CHUNKS, seed=3)


def test_an_untrained_autoencoder_is_probed_on_what_there_is() -> None:
    config = AutoencoderConfig(latent_size=Z, hidden_size=8, intermediate_size=8, training=Training(num_steps=1))
    found = probe(Autoencoder(config, K, V), CHUNKS[:7], seed=0)
    assert found.collapsed.num_chunks == 7
    assert all(0 <= point.accuracy.value <= 1 for point in (*found.noise, *found.bits))
