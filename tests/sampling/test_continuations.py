"""Continuations of all positions at once against the plain computation, one prefix at a time."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Generator, Tensor

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.head_config import EnergyHead
from calm_bench.lm import Calm, ChunkLanguageModel, TokenModel
from calm_bench.sampling.continuations import sample_continuations

VOCAB_SIZE = 11
LENGTH = 16


def spread_weights(model: ChunkLanguageModel, seed: int, scale: float = 0.5) -> None:
    """Untrained weights are too small, and the head's last layer is zero: outputs would hardly depend on inputs."""
    generator = Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # a large bias would say the same whatever was read
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def config(kind: str, chunk_size: int) -> LanguageModelConfig:
    return LanguageModelConfig.model_validate(
        {
            "kind": kind,
            "chunk_size": chunk_size,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head": EnergyHead(noise_size=8),
        }
    )


class RankedTokenModel(TokenModel):
    """Sample s is the s-th most likely token: deterministic, yet the samples of a position differ."""

    def draw(self, hidden: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        return self.probabilities(hidden).topk(num_samples).indices.movedim(-1, 0)[..., None]


class FixedNoiseCalm(Calm):
    """Sample s uses the s-th of a fixed list of noises."""

    def draw(self, hidden: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        noise = torch.rand(8, self.config.head.noise_size, generator=Generator().manual_seed(5)) - 0.5
        noise = 3 * noise[:num_samples].view(num_samples, *[1] * (hidden.ndim - 1), -1)
        return self.autoencoder.decode(self.head(hidden, noise.expand(num_samples, *hidden.shape[:-1], -1)))


def deterministic_model(chunk_size: int) -> ChunkLanguageModel:
    torch.manual_seed(chunk_size)
    model: ChunkLanguageModel
    if chunk_size == 0:
        model = RankedTokenModel(config("token", 1), VOCAB_SIZE)
    else:
        sizes = AutoencoderConfig(latent_size=8, hidden_size=16, intermediate_size=24)
        model = FixedNoiseCalm(config("calm", chunk_size), Autoencoder(sizes, chunk_size, VOCAB_SIZE))
    spread_weights(model, seed=3)
    return model.eval()


def one_by_one(model: ChunkLanguageModel, prefix: Tensor, sample: int, num_samples: int, horizon: int) -> list[int]:
    text = prefix[None]
    while text.shape[1] < len(prefix) + horizon:
        hidden = model.hidden_states(text)[0, -1]
        chunk = model.draw(hidden, num_samples)[sample] if text.shape[1] == len(prefix) else model.draw(hidden, 1)[0]
        text = torch.cat([text, chunk[None]], dim=1)
    continuation: list[int] = text[0, len(prefix) : len(prefix) + horizon].tolist()
    return continuation


@pytest.mark.parametrize("block_nodes", [1, 9, 64])
@pytest.mark.parametrize("chunk_size", [0, 1, 2, 3, 4, 8])
def test_agrees_with_one_prefix_at_a_time(chunk_size: int, block_nodes: int) -> None:
    model = deterministic_model(chunk_size)
    step = max(chunk_size, 1)
    windows = torch.randint(VOCAB_SIZE, (2, LENGTH), generator=Generator().manual_seed(0))
    positions = list(range(step, LENGTH + 1, step))
    generators = [Generator(), Generator()]
    found = sample_continuations(model, windows, positions, 3, 4, generators, block_nodes=block_nodes)
    assert found.shape == (2, len(positions), 3, 4)
    with torch.no_grad():
        expected = [
            [[one_by_one(model, window[:position], sample, 3, 4) for sample in range(3)] for position in positions]
            for window in windows
        ]
    assert found.tolist() == expected
    # The test would prove little if all positions or samples continued alike.
    assert len({tuple(c) for w in expected for p in w for c in p}) > len(positions)
    assert any(len({tuple(c) for c in p}) == 3 for w in expected for p in w)


@pytest.mark.parametrize("chunk_size", [0, 2])
def test_a_window_does_not_depend_on_its_batch(chunk_size: int) -> None:
    torch.manual_seed(0)
    model: ChunkLanguageModel
    if chunk_size == 0:
        model = TokenModel(config("token", 1), VOCAB_SIZE)
    else:
        model = Calm(config("calm", 2), Autoencoder(AutoencoderConfig(latent_size=8), 2, VOCAB_SIZE))
    spread_weights(model, seed=1)
    windows = torch.randint(VOCAB_SIZE, (5, LENGTH), generator=Generator().manual_seed(0))

    def draw(which: list[int]) -> Tensor:
        generators = [Generator().manual_seed(100 + index) for index in which]
        return sample_continuations(model, windows[which], [4, 8, 12], 4, 4, generators)

    together = draw([0, 1, 2, 3, 4])
    assert torch.equal(together[[3]], draw([3]))
    assert torch.equal(together[[4, 1]], draw([4, 1]))
    assert not torch.equal(together[0], together[1])


def test_frequencies_are_the_models_probabilities() -> None:
    """All 4-grams of a vocabulary of three: their frequencies, and the rate at which two samples collide."""
    torch.manual_seed(0)
    model = TokenModel(config("token", 1), 3)
    spread_weights(model, seed=2)
    window = torch.tensor([[0, 2, 1, 1, 0, 2]])
    positions, num_samples = [2, 5], 1200
    generators = [Generator().manual_seed(7)]
    drawn = sample_continuations(model, window, positions, num_samples, 4, generators)
    assert drawn.shape == (1, 2, num_samples, 4)
    code = (drawn[0] * torch.tensor([27, 9, 3, 1])).sum(-1)
    for row, position in enumerate(positions):
        grams = torch.tensor(list(itertools.product(range(3), repeat=4)))
        texts = torch.cat([window[:, :position].expand(81, -1), grams], dim=1)
        with torch.no_grad():
            following = model.probabilities(model.hidden_states(texts))[:, position - 1 : -1]
        exact = following.gather(2, grams[..., None]).squeeze(-1).double().prod(1)
        assert exact.sum().item() == pytest.approx(1.0, abs=1e-5)
        counts = torch.bincount(code[row], minlength=81).double()
        # Rare 4-grams together: a cell with less than five expected makes chi-square a lottery.
        rare = num_samples * exact < 5
        expected = num_samples * torch.cat([exact[~rare], exact[rare].sum(0, keepdim=True)])
        observed = torch.cat([counts[~rare], counts[rare].sum(0, keepdim=True)])
        freedom = len(expected) - 1
        assert freedom > 10
        chi_square = ((observed - expected) ** 2 / expected).sum().item()
        assert chi_square < freedom + 4 * (2 * freedom) ** 0.5
        collisions = (counts * (counts - 1)).sum() / (num_samples * (num_samples - 1))
        spread = 2 * ((exact**3).sum() - exact.square().sum() ** 2).clamp_min(0).sqrt() / num_samples**0.5
        assert abs(collisions - exact.square().sum()) < 4 * spread


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([3], "not a multiple of the chunk size 2"),
        ([0, 2], "between the chunk size 2"),
        ([2, 18], "window length 16"),
        ([4, 2], "increasing"),
        ([], "increasing"),
    ],
)
def test_impossible_positions_are_refused(positions: list[int], message: str) -> None:
    model = deterministic_model(2)
    windows = torch.zeros((1, LENGTH), dtype=torch.long)
    with pytest.raises(ValueError, match=message):
        sample_continuations(model, windows, positions, 2, 4, [Generator()])


def test_every_window_needs_a_generator() -> None:
    with pytest.raises(ValueError, match="2 windows need as many generators, found 1"):
        sample_continuations(deterministic_model(1), torch.zeros((2, 8), dtype=torch.long), [4], 2, 4, [Generator()])
