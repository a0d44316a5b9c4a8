"""Temperature sampling against exact distributions: known chunks, and models' own probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Generator, Tensor

from calm_bench import blockwise
from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.lm import Calm, ChunkLanguageModel, TokenModel
from calm_bench.sampling.batch import acceptance, selection_probabilities
from calm_bench.sampling.exact import first_accepted
from calm_bench.sampling.pool import chunk_ids
from calm_bench.sampling.power import Power
from calm_bench.sampling.temperature import Decoding, Sampled, sample_chunks, sample_from

CHUNKS = torch.tensor([[0, 1], [0, 2], [1, 0], [1, 2], [2, 2]])
PROBABILITIES = torch.tensor([0.4, 0.25, 0.2, 0.1, 0.05], dtype=torch.float64)
NUM_ROWS = 20_000
CRITICAL = {1: 15.14, 4: 23.51}
"""Chi-square exceeded with probability 1e-4, by degrees of freedom."""


class KnownDistribution:
    """All rows draw from CHUNKS with PROBABILITIES."""

    def __init__(self, seed: int) -> None:
        self._generator = Generator().manual_seed(seed)
        self.drawn = 0

    def chunks(self, rows: list[int], count: int) -> Tensor:
        self.drawn += len(rows) * count
        size = len(rows) * count
        codes = torch.multinomial(PROBABILITIES, size, replacement=True, generator=self._generator)
        return CHUNKS[codes].view(len(rows), count, 2)

    def uniform(self, rows: list[int], count: int) -> Tensor:
        return torch.rand((len(rows), count), dtype=torch.float64, generator=self._generator)


def frequencies(sampled: Sampled) -> Tensor:
    return (sampled.chunks[:, None] == CHUNKS).all(-1).double().sum(0)


def chi_square(counts: Tensor, expected: Tensor) -> float:
    total = counts.sum()
    return float(((counts - total * expected).square() / (total * expected)).sum())


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.5, 1 / 3, 0.3])
def test_exact_algorithm_has_the_exact_distribution(temperature: float) -> None:
    source = KnownDistribution(seed=round(100 * temperature))
    sampled = sample_from(source, [[]] * NUM_ROWS, Decoding(temperature))
    target = PROBABILITIES ** (1 / temperature)
    target /= target.sum()
    assert chi_square(frequencies(sampled), target) < CRITICAL[4]
    if temperature < 1:  # the test can tell the target from a neighbouring temperature
        wrong = PROBABILITIES ** (1 / temperature - 0.2)
        assert chi_square(frequencies(sampled), wrong / wrong.sum()) > CRITICAL[4]
    assert bool(sampled.found.all())
    assert not bool(sampled.approximated.any())
    assert int(sampled.head_evaluations.sum()) == int(sampled.decoder_evaluations.sum()) == source.drawn


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.5, 0.3])
def test_known_tokens_condition_the_exact_algorithm(temperature: float) -> None:
    """Rows that know nothing, rows that know a first token, in one batch."""
    begins: list[list[int]] = [[], [1]] * (NUM_ROWS // 2)
    sampled = sample_from(KnownDistribution(seed=5), begins, Decoding(temperature))
    target = PROBABILITIES ** (1 / temperature)
    counts = (sampled.chunks[:, None] == CHUNKS).all(-1).double()
    assert chi_square(counts[::2].sum(0), target / target.sum()) < CRITICAL[4]
    assert counts[1::2, [0, 1, 4]].sum() == 0
    allowed = target[2:4] / target[2:4].sum()
    assert chi_square(counts[1::2, 2:4].sum(0), allowed) < CRITICAL[1]


def plain_algorithm(stream: list[int], tosses: list[float], power: Power) -> tuple[int, int] | None:
    """Algorithm 1 of the paper as written, on a stream: (candidate, number of draws), None if the stream is short.

    An attempt's stop is decided beforehand from ``tosses`` at its start, as in the code under test.
    """
    place = 0
    while True:
        start, candidate = place, stream[place] if place < len(stream) else None
        place += 1
        failed = False
        for _ in range(power.whole - 1):
            if place >= len(stream):
                return None
            failed = stream[place] != candidate
            place += 1
            if failed:
                break
        if candidate is None:
            return None
        if failed:
            continue
        if not power.rest:
            return candidate, place
        toss, survival = 0, 1.0
        while True:
            if place >= len(stream):
                return None
            toss += 1
            survival *= 1 - power.rest / toss
            place += 1
            if stream[place - 1] == candidate:
                return candidate, place
            if tosses[start] >= survival:
                break


@pytest.mark.parametrize("temperature", [1.0, 0.9, 0.7, 0.5, 0.45, 1 / 3, 0.3, 0.22])
def test_all_starts_at_once_agree_with_one_after_the_other(temperature: float) -> None:
    power = Power.of_temperature(temperature)
    generator = Generator().manual_seed(1)
    codes = torch.randint(3, (300, 40), generator=generator)
    lengths = torch.randint(41, (300,), generator=generator)
    uniform = torch.rand((300, 40), dtype=torch.float64, generator=generator)
    found = first_accepted(CHUNKS[codes], lengths, uniform, power)
    outcomes = set()
    for row in range(300):
        plain = plain_algorithm(codes[row, : lengths[row]].tolist(), uniform[row].tolist(), power)
        outcomes.add(plain is None)
        assert (int(found[row]) < 0) == (plain is None)
        if plain is not None:
            assert codes[row, found[row]] == plain[0]
    assert outcomes == {True, False}


def test_rows_stop_drawing_once_they_accept() -> None:
    sampled = sample_from(KnownDistribution(0), [[]] * 2000, Decoding(0.5))
    assert {16, 32, 64} <= set(sampled.head_evaluations.tolist())
    # Two samples agree with probability 0.275: 3.6 pairs on average, and 16 candidates are drawn at the least.
    assert 16 < sampled.head_evaluations.double().mean() < 20
    once = sample_from(KnownDistribution(0), [[]] * 2000, Decoding(1.0))
    assert set(once.head_evaluations.tolist()) == {1}


def test_a_row_out_of_draws_chooses_among_its_candidates_and_says_so() -> None:
    sampled = sample_from(KnownDistribution(0), [[]] * 2000, Decoding(0.25, max_draws=6))
    share = sampled.approximated.double().mean()
    assert 0.5 < share < 0.99
    assert bool(sampled.found.all())
    assert set(sampled.head_evaluations.tolist()) == {6}
    # What falls back is chosen as the batch approximation does, so it is still sharper than the model itself.
    fallen = sampled.chunks[sampled.approximated]
    assert (fallen == CHUNKS[0]).all(-1).double().mean() > PROBABILITIES[0] + 0.1


@pytest.mark.parametrize("temperature", [0.5, 1 / 3, 0.4])
def test_auto_is_exact_where_n_candidates_do_and_a_batch_of_them_where_not(temperature: float) -> None:
    candidates = 24
    auto = sample_from(KnownDistribution(1), [[]] * 4000, Decoding(temperature, "auto", candidates))
    assert int(auto.head_evaluations.max()) <= candidates
    assert 0 < int(auto.approximated.sum()) < 4000
    exact = sample_from(KnownDistribution(1), [[]] * 4000, Decoding(temperature, "exact", max_draws=candidates))
    assert torch.equal(auto.chunks, exact.chunks)
    # Accepted chunks have the distribution of the exact algorithm; at a fraction late ones are cut off unevenly.
    target = PROBABILITIES ** (1 / temperature)
    accepted = (auto.chunks[~auto.approximated][:, None] == CHUNKS).all(-1).double().sum(0)
    if temperature != 0.4:
        assert chi_square(accepted, target / target.sum()) < 3 * CRITICAL[4]


@pytest.mark.parametrize("temperature", [0.5, 1 / 3])
def test_acceptance_is_estimated_without_bias(temperature: float) -> None:
    power = Power.of_temperature(temperature)
    found = acceptance(KnownDistribution(3).chunks(list(range(6000)), 9), power)
    expected = (PROBABILITIES**power.value).sum()
    assert abs(found.mean() - expected) < 4 * found.std() / len(found) ** 0.5
    assert found.std() / len(found) ** 0.5 < 0.02 * expected
    assert not acceptance(KnownDistribution(3).chunks([0], power.whole - 1), power).any()


class AgreesSeldom:
    """Every row draws one of ``size`` chunks, all alike: two samples agree with probability 1 / size."""

    def __init__(self, size: int) -> None:
        self._size, self._generator = size, Generator().manual_seed(0)

    def chunks(self, rows: list[int], count: int) -> Tensor:
        return torch.randint(self._size, (len(rows), count, 1), generator=self._generator)

    def uniform(self, rows: list[int], count: int) -> Tensor:
        return torch.rand((len(rows), count), dtype=torch.float64, generator=self._generator)


@pytest.mark.parametrize(
    ("temperature", "size", "approximated"), [(0.5, 3, (0, 0)), (0.5, 200, (0.5, 0.75)), (1 / 3, 20, (0.6, 0.85))]
)
def test_auto_costs_no_more_than_a_batch_and_tells_what_exact_would_take(
    temperature: float, size: int, approximated: tuple[float, float]
) -> None:
    """Agreements of a third, of 0.5 % and of 5 %: about 100 attempts of two draws fit into 200."""
    sampled = sample_from(AgreesSeldom(size), [[]] * 1000, Decoding(temperature, "auto"))
    assert int(sampled.head_evaluations.max()) <= 200
    share = float(sampled.approximated.double().mean())
    assert approximated[0] <= share <= approximated[1]
    assert not sampled.acceptance[~sampled.approximated].any()
    if share:
        told = float(sampled.acceptance[sampled.approximated].mean())
        # Where nothing was accepted fewer were equal, but not by much.
        assert 0.7 < told * size ** (1 / temperature - 1) < 1.05


def test_known_tokens_may_take_auto_more_than_n_draws() -> None:
    """The rarest first token; other rows of the batch keep to N."""
    sampled = sample_from(KnownDistribution(2), [[2], []] * 500, Decoding(0.5, "auto", candidates=16))
    assert bool(sampled.found.all())
    assert (sampled.chunks[::2] == torch.tensor([2, 2])).all()
    assert int(sampled.head_evaluations[::2].max()) > 16 >= int(sampled.head_evaluations[1::2].max())


def test_known_tokens_never_drawn_are_reported_as_not_found() -> None:
    for method in ("exact", "batch"):
        decoding = Decoding(0.5, method=method, candidates=20, max_draws=50)  # type: ignore[arg-type]
        sampled = sample_from(KnownDistribution(0), [[3], []], decoding)
        assert sampled.found.tolist() == [False, True]
        assert int(sampled.head_evaluations[0]) == 50


@pytest.mark.parametrize("temperature", [0.7, 0.5, 1 / 3])
def test_batch_approximation_approaches_the_target(temperature: float) -> None:
    target = PROBABILITIES ** (1 / temperature)
    target /= target.sum()
    error = []
    for candidates in (5, 20, 320):
        decoding = Decoding(temperature, method="batch", candidates=candidates)
        sampled = sample_from(KnownDistribution(0), [[]] * 4000, decoding)
        assert set(sampled.head_evaluations.tolist()) == {candidates}
        error.append(float((frequencies(sampled) / 4000 - target).abs().sum()))
    assert error[0] > 2 * error[2]
    assert error[2] < 0.03


def test_batch_approximation_within_the_known_tokens() -> None:
    decoding = Decoding(0.5, method="batch", candidates=200)
    sampled = sample_from(KnownDistribution(0), [[1]] * 600, decoding)
    assert set(sampled.chunks[:, 0].tolist()) == {1}
    frequency = float((sampled.chunks[:, 1] == 0).double().mean())
    assert frequency == pytest.approx(0.8, abs=0.06)  # 0.2^2 : 0.1^2
    assert float(sampled.head_evaluations.double().mean()) > 600  # 200 of 0.3


def test_selection_falls_to_the_largest_repetition() -> None:
    pool = torch.tensor([[[1], [2], [1], [3]], [[4], [5], [6], [7]], [[1], [1], [1], [2]]])
    found = selection_probabilities(pool, Power(3, 0.0))
    assert found.tolist() == [[1, 0, 0, 0], [0.25] * 4, [1, 0, 0, 0]]
    # 1/T = 2: C(3, 2) = 3 and C(2, 2) = 1.
    pool = torch.tensor([[[1], [2], [1], [2], [1], [3]]])
    torch.testing.assert_close(
        selection_probabilities(pool, Power(2, 0.0)), torch.tensor([[0.75, 0.25, 0, 0, 0, 0]]).double()
    )


def test_chunks_with_many_large_tokens_are_told_apart() -> None:
    generator = Generator().manual_seed(0)
    distinct = torch.randint(128_256, (2, 12, 8), generator=generator)
    distinct[0, 1] = distinct[0, 0]
    distinct[0, 1, 7] += 1
    picks = torch.randint(12, (2, 400), generator=generator)
    pool = distinct.gather(1, picks.unsqueeze(-1).expand(-1, -1, 8))
    ids = chunk_ids(pool)
    expected = (pool[:, :, None] == pool[:, None]).all(-1)
    assert torch.equal(ids[:, :, None] == ids[:, None], expected)


def model_of(chunk_size: int, vocab_size: int = 5) -> ChunkLanguageModel:
    torch.manual_seed(chunk_size + 1)
    kind = "calm" if chunk_size else "token"
    config = LanguageModelConfig.model_validate(
        {"kind": kind, "chunk_size": max(1, chunk_size), "hidden_size": 16, "intermediate_size": 24, "num_layers": 1}
    )
    model: ChunkLanguageModel
    if chunk_size:
        sizes = AutoencoderConfig(latent_size=8, hidden_size=16, intermediate_size=24)
        model = Calm(config, Autoencoder(sizes, chunk_size, vocab_size))
    else:
        model = TokenModel(config, vocab_size)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.add_(0.3 * torch.randn(parameter.shape))
    return model.eval()


def generators(seeds: Sequence[int]) -> list[Generator]:
    return [Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("chunk_size", [0, 1, 4])
@pytest.mark.parametrize("method", ["exact", "batch", "auto"])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.5])
def test_a_row_gets_what_it_would_get_alone(chunk_size: int, method: str, temperature: float) -> None:
    model = model_of(chunk_size)
    hidden = 2 * torch.randn((6, 16), generator=Generator().manual_seed(3))
    begins = [[], [1], [], [2], [0], []] if chunk_size == 4 else [[]] * 6
    decoding = Decoding(temperature, method=method, candidates=40, max_draws=128)  # type: ignore[arg-type]
    together = sample_chunks(model, hidden, decoding, generators(range(6)), begins)
    for row in range(6):
        alone = sample_chunks(model, hidden[[row]], decoding, generators([row]), [begins[row]])
        assert torch.equal(alone.chunks[0], together.chunks[row])
        assert alone.head_evaluations[0] == together.head_evaluations[row]
    assert len(set(map(tuple, together.chunks.tolist()))) > 1


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.3])
def test_temperature_of_the_token_model_scales_its_logits(temperature: float) -> None:
    model = model_of(0)
    assert isinstance(model, TokenModel)
    hidden = 0.5 * torch.randn((1, 16), generator=Generator().manual_seed(0))
    sampled = sample_chunks(model, hidden.expand(3000, -1), Decoding(temperature), generators(range(3000)))
    expected = (model.lm_head(hidden) / temperature).softmax(-1).double().detach()[0]
    assert chi_square(torch.bincount(sampled.chunks[:, 0], minlength=5).double(), expected) < CRITICAL[4]
    assert int(sampled.decoder_evaluations.sum()) == 0


def test_logits_of_all_candidates_are_never_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 x 200 candidates at Llama-3's vocabulary would be 6.6 GB of logits; here with a block and sizes cut alike."""
    largest = 0
    plain = torch.nn.functional.linear

    def watched(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        nonlocal largest
        output = plain(input, weight, bias)
        largest = max(largest, output.numel())
        return output

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    model = model_of(4, vocab_size=4096)
    hidden = torch.randn((16, 16), generator=Generator().manual_seed(3))
    sample_chunks(model, hidden, Decoding(0.5, method="batch", candidates=200), generators(range(16)))
    assert largest <= blockwise.CACHED_LOGITS < 16 * 200 * 4 * 4096 / 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "not in"),
        ({"temperature": 1.1}, "not in"),
        ({"candidates": 0}, "at least 1"),
        ({"max_draws": 0}, "at least 1"),
        ({"method": "greedy"}, "none of exact, batch, auto"),
    ],
)
def test_impossible_decodings_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decoding(**arguments)  # type: ignore[arg-type]


def test_thirds_are_thirds() -> None:
    assert Power.of_temperature(1 / 3) == Power(3, 0.0)
    assert Power.of_temperature(0.5) == Power(2, 0.0)
    assert Power.of_temperature(0.3).whole == 3
    assert Power.of_temperature(0.3).rest == pytest.approx(1 / 3)
