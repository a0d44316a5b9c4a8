"""Continuations of all positions at once against the plain computation, one prefix at a time."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from calm_bench import blockwise
from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.finite import NotFinite
from calm_bench.head_config import EnergyHead
from calm_bench.heads.noise import Noise
from calm_bench.lm import Calm, ChunkLanguageModel, TokenModel
from calm_bench.lm.tree import Nodes
from calm_bench.sampling import window_noise
from calm_bench.sampling.continuations import sample_continuations
from evals.brier import brier_scores

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

    def draw_from(self, hidden: Tensor, noise: Noise) -> Tensor:
        num_samples = len(noise.uniform(1))
        return self.probabilities(hidden).topk(num_samples).indices.movedim(-1, 0)[..., None]

    def draw_each(self, hidden: Tensor, state: Tensor, noise: Noise) -> Tensor:
        return self.probabilities(hidden[state]).argmax(-1, keepdim=True)


class FixedNoiseCalm(Calm):
    """Sample s uses the s-th of a fixed list of noises."""

    def latents_from(self, hidden: Tensor, noise: Noise) -> Tensor:
        batch = noise.uniform(1).shape[:-1]
        fixed = torch.rand(8, self.config.head.noise_size, generator=Generator().manual_seed(5)) - 0.5
        if len(batch) < hidden.ndim:  # one sample of each row
            return self.head(hidden, 3 * fixed[:1].expand(*batch, -1))
        fixed = 3 * fixed[: batch[0]].view(batch[0], *[1] * (hidden.ndim - 1), -1)
        return self.head(hidden, fixed.expand(*batch, -1))


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


def random_model(chunk_size: int) -> ChunkLanguageModel:
    """A token model for 0."""
    torch.manual_seed(0)
    model: ChunkLanguageModel
    if chunk_size == 0:
        model = TokenModel(config("token", 1), VOCAB_SIZE)
    else:
        sizes = AutoencoderConfig(latent_size=8, hidden_size=16, intermediate_size=24)
        model = Calm(config("calm", chunk_size), Autoencoder(sizes, chunk_size, VOCAB_SIZE))
    spread_weights(model, seed=1)
    return model.eval()


def one_by_one(model: ChunkLanguageModel, prefix: Tensor, sample: int, num_samples: int, horizon: int) -> list[int]:
    text = prefix[None]
    while text.shape[1] < len(prefix) + horizon:
        hidden = model.hidden_states(text)[0, -1]
        chunk = model.draw(hidden, num_samples)[sample] if text.shape[1] == len(prefix) else model.draw(hidden, 1)[0]
        text = torch.cat([text, chunk[None]], dim=1)
    continuation: list[int] = text[0, len(prefix) : len(prefix) + horizon].tolist()
    return continuation


@pytest.mark.parametrize("block_samples", [1, 64])
@pytest.mark.parametrize("chunk_size", [0, 1, 2, 3, 4, 8])
def test_agrees_with_one_prefix_at_a_time(chunk_size: int, block_samples: int) -> None:
    model = deterministic_model(chunk_size)
    step = max(chunk_size, 1)
    windows = torch.randint(VOCAB_SIZE, (2, LENGTH), generator=Generator().manual_seed(0))
    positions = list(range(step, LENGTH + 1, step))
    generators = [Generator(), Generator()]
    found = sample_continuations(model, windows, positions, 3, 4, generators, block_samples=block_samples)
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
    model = random_model(chunk_size)
    windows = torch.randint(VOCAB_SIZE, (5, LENGTH), generator=Generator().manual_seed(0))

    def draw(which: list[int]) -> Tensor:
        generators = [Generator().manual_seed(100 + index) for index in which]
        return sample_continuations(model, windows[which], [4, 8, 12], 4, 4, generators)

    together = draw([0, 1, 2, 3, 4])
    assert torch.equal(together[[3]], draw([3]))
    assert torch.equal(together[[4, 1]], draw([4, 1]))
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("chunk_size", [0, 1, 2, 3, 4, 8])
def test_stopping_changes_no_token_that_is_drawn_and_no_score(chunk_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample stops at its first token that agrees neither with the target nor with another sample."""
    monkeypatch.setattr(window_noise, "UNIT_SAMPLES", 12)  # several units, the last one incomplete
    model = random_model(chunk_size)
    step = max(chunk_size, 1)
    windows = torch.randint(VOCAB_SIZE, (3, LENGTH + 5), generator=Generator().manual_seed(0))
    positions = list(range(step, LENGTH + 1, step))
    targets = torch.stack([windows[:, position : position + 5] for position in positions], dim=1)

    def draw(wanted: Tensor | None, block_samples: int = 64) -> Tensor:
        generators = [Generator().manual_seed(100 + window) for window in range(3)]
        return sample_continuations(model, windows, positions, 5, 5, generators, wanted, block_samples)

    complete, stopped = draw(None), draw(targets)
    assert (complete >= 0).all()
    assert torch.equal(draw(None, 1), complete)
    assert torch.equal(draw(targets, 1), stopped)
    assert torch.equal(stopped.where(stopped >= 0, complete), complete)
    for sample, texts in enumerate(complete.unbind(2)):
        others = torch.cat([complete[:, :, :sample], complete[:, :, sample + 1 :], targets[:, :, None]], dim=2)
        alike = (others == texts[:, :, None]).long().cumprod(dim=-1).any(dim=2)
        goes_on = torch.cat([torch.ones_like(alike[..., :1]), alike[..., :-1]], dim=-1)
        assert torch.equal(stopped[:, :, sample] >= 0, goes_on)
    assert 0.1 < (stopped < 0).float().mean() < 0.9
    scores = [brier_scores(found.numpy(), targets.numpy(), (1, 2, 3, 4, 5)) for found in (complete, stopped)]
    assert (scores[0] == scores[1]).all()


@pytest.mark.parametrize("num_samples", [2, 5])
@pytest.mark.parametrize("chunk_size", [1, 2, 4])
def test_asking_only_for_tokens_that_matter_changes_no_score(
    chunk_size: int, num_samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of samples that agree is not decoded where it can be neither another's token nor the target."""
    torch.manual_seed(0)
    sizes = AutoencoderConfig(latent_size=8, hidden_size=16, intermediate_size=24)
    model = Calm(config("calm", chunk_size), Autoencoder(sizes, chunk_size, 64)).eval()
    spread_weights(model, seed=1)
    windows = torch.randint(64, (3, LENGTH + 5), generator=Generator().manual_seed(0))
    positions = list(range(chunk_size, LENGTH + 1, chunk_size))
    targets = torch.stack([windows[:, position : position + 5] for position in positions], dim=1)
    asked: list[Tensor] = []
    argmax_among = blockwise.argmax_among

    def noted(hidden: Tensor, weight: Tensor, among: Tensor) -> Tensor:
        asked.append(argmax_among(hidden, weight, among))
        return asked[-1]

    def draw() -> Tensor:
        generators = [Generator().manual_seed(100 + window) for window in range(3)]
        return sample_continuations(model, windows, positions, num_samples, 5, generators, targets)

    monkeypatch.setattr(blockwise, "argmax_among", noted)
    plain = draw()
    assert not asked
    monkeypatch.setattr(blockwise, "FEWEST_WORDS", 64)
    monkeypatch.setattr(blockwise, "FEWEST_LOGITS", 1)
    pruned = draw()
    given_up = torch.cat(asked) < 0
    assert 0.1 < given_up.float().mean() < 1
    assert ((pruned < 0) & (plain >= 0)).sum() == given_up.sum()
    assert torch.equal(pruned.where(pruned >= 0, plain), plain)
    scores = [brier_scores(found.numpy(), targets.numpy(), (1, 2, 3, 4, 5)) for found in (plain, pruned)]
    assert (scores[0] == scores[1]).all()
    assert (scores[0] != 0).any()


def test_samples_that_agree_share_a_pass_of_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(0)
    passes: list[int] = []
    descend = Nodes.descend

    def counted(self: Nodes, parent: Tensor, inputs: Tensor, *rest: Tensor) -> Tensor:
        passes.append(len(inputs))
        return descend(self, parent, inputs, *rest)

    monkeypatch.setattr(Nodes, "descend", counted)
    windows = torch.randint(VOCAB_SIZE, (2, LENGTH), generator=Generator().manual_seed(0))
    generators = [Generator().manual_seed(0), Generator().manual_seed(1)]
    found = sample_continuations(model, windows, [3, 6, 9], 50, 3, generators)
    distinct = [sum(len(own.unique(dim=0)) for own in found[..., :n].flatten(0, 1)) for n in (1, 2)]
    assert passes == distinct
    assert distinct[0] <= 2 * 3 * VOCAB_SIZE < distinct[1] < 2 * 3 * 50


@pytest.mark.parametrize("chunk_size", [0, 2])
def test_memory_grows_with_the_block_and_not_with_text_times_vocabulary(chunk_size: int) -> None:
    """The largest tensor is one block of logits, whatever the length; those of all positions would be several."""
    vocabulary = 20_000
    torch.manual_seed(0)
    model: ChunkLanguageModel = TokenModel(config("token", 1), vocabulary)
    if chunk_size:
        sizes = AutoencoderConfig(latent_size=8, hidden_size=16, intermediate_size=24)
        model = Calm(config("calm", chunk_size), Autoencoder(sizes, chunk_size, vocabulary))
    step, largest = max(chunk_size, 1), []
    for length in (300, 600):
        windows = torch.randint(vocabulary, (1, length), generator=Generator().manual_seed(0))
        with LargestTensor() as seen:
            sample_continuations(model, windows, range(step, length, step), 2, 4, [Generator()], block_samples=1)
        largest.append(seen.numel)
    assert largest[0] == largest[1] <= blockwise.CACHED_LOGITS < 300 * vocabulary


class LargestTensor(TorchDispatchMode):
    """Notes the largest tensor that any operation gives."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


@pytest.mark.parametrize("chunk_size", [0, 2])
def test_what_is_not_finite_is_refused(chunk_size: int) -> None:
    windows = torch.zeros((1, LENGTH), dtype=torch.long)
    for name in ["backbone.norm.weight", "head.final.out_proj.bias" if chunk_size else "lm_head.weight"]:
        model = random_model(chunk_size)
        with torch.no_grad():
            model.get_parameter(name).fill_(torch.nan)
        with pytest.raises(NotFinite, match="not finite"):
            sample_continuations(model, windows, [4, 8], 2, 4, [Generator()])


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


def test_targets_must_belong_to_the_continuations() -> None:
    windows = torch.zeros((1, 8), dtype=torch.long)
    with pytest.raises(ValueError, match=r"targets \[1, 2, 4\] do not belong to continuations of shape \[1, 1, 4\]"):
        sample_continuations(deterministic_model(1), windows, [4], 2, 4, [Generator()], windows.view(1, 2, 4))


def test_every_window_needs_a_generator() -> None:
    with pytest.raises(ValueError, match="2 windows need as many generators, found 1"):
        sample_continuations(deterministic_model(1), torch.zeros((2, 8), dtype=torch.long), [4], 2, 4, [Generator()])
