"""What a model of every family must do, whatever it is inside.

A family's test class inherits :class:`FamilyConformance`, or the suite for families with exact probabilities or with a
bound of them, and names a configuration; pytest then runs every test of it::

    from calm_bench.testing.family_conformance import ExactFamilyConformance


    class TestUnigram(ExactFamilyConformance):
        settings = {"kind": "custom", "custom": {"target": "my_family:Unigram"}}
"""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Generator, Tensor

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel
from calm_bench.families.base import family_of
from calm_bench.families.counting import counted_flops
from calm_bench.flops import inference_flops, parameter_count, training_flops
from calm_bench.lm import ChunkLanguageModel, ExactModel, load_language_model
from calm_bench.lm.folder import build_language_model
from calm_bench.row_noise import RowNoise, Rows
from calm_bench.sampling.continuations import sample_continuations
from calm_bench.sampling.generate import generate_batch
from calm_bench.sampling.temperature import Decoding, sample_chunks
from calm_bench.sampling.traces import trace_continuations
from calm_bench.trusted_code import targets_in, trust_code

V, D, STEPS = 5, 16, 4
"""Vocabulary, hidden size, chunks of a training sequence."""
SMALL = {"hidden_size": D, "intermediate_size": 24, "num_layers": 2, "num_attention_heads": 2}


class FamilyConformance:
    """Inherit, set ``settings``, and run: shapes, gradients, seeds, independence of rows, costs, probabilities,
    sampling, workers, saving."""

    settings: ClassVar[dict[str, Any]]
    """Settings of ``model``: ``kind`` and whatever the family needs."""
    trusted: ClassVar[tuple[str, ...]] = ()
    """``module:NAME`` of classes that a saved folder may have imported."""
    training_tolerance: ClassVar[float] = 1e-6
    """Relative; a closed form may state an expectation."""
    state_size: ClassVar[int] = D
    """Numbers of a hidden state, with what a model hands on beside it."""
    likelihood: ClassVar[str] = "none"
    """What the network knows of the probability of a chunk; :class:`ExactFamilyConformance` and
    :class:`BoundedFamilyConformance` are for networks that know something."""

    def config(self, **changed: Any) -> LanguageModel:
        config = LanguageModel.model_validate({**SMALL, "chunk_size": 2, **self.settings, **changed})
        trust_code(*targets_in(config.model_dump()))
        return config.model_copy(update={"chunk_size": family_of(config).chunk_size(config)})

    def build(self, seed: int = 0, **changed: Any) -> ChunkLanguageModel:
        """An untrained model with its autoencoder, if it needs one."""
        config = self.config(**changed)
        frozen = None
        if config.needs_autoencoder:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1)
                frozen = Autoencoder(self.autoencoder(), config.chunk_size, V)
        model = build_language_model(config, V, frozen, seed)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(2)
            for _, parameter in model.trainable_parameters():
                parameter += 0.2 * torch.randn_like(parameter)
        return model.eval()

    def autoencoder(self) -> AutoencoderConfig:
        return AutoencoderConfig(latent_size=6, hidden_size=8, intermediate_size=12)

    def test_what_it_knows_of_probabilities_is_tested(self) -> None:
        assert self.build().likelihood == self.likelihood, "inherit from the suite for this kind of likelihood"

    def test_hidden_states_and_draws_have_their_shapes(self) -> None:
        model = self.build()
        size = model.chunk_size
        tokens = text(3, STEPS * size)
        hidden = model.hidden_states(tokens)
        assert hidden.shape == (3, STEPS, self.state_size)
        with torch.no_grad():
            assert model.draw(hidden, 4, seeded(0)).shape == (4, 3, STEPS, size)
            assert model.draw(hidden[0, 0], 4, seeded(0)).shape == (4, size)
            drawn = model.draw_rows(hidden[:, 0], 4, [seeded(row) for row in range(3)])
        assert drawn.shape == (4, 3, size)
        assert 0 <= int(drawn.min()) <= int(drawn.max()) < V

    def test_no_step_looks_ahead(self) -> None:
        model = self.build()
        tokens = text(2, STEPS * model.chunk_size)
        changed = tokens.clone()
        changed[:, -model.chunk_size :] = (changed[:, -model.chunk_size :] + 1) % V
        before, after = model.hidden_states(tokens), model.hidden_states(changed)
        torch.testing.assert_close(after[:, :-1], before[:, :-1])
        assert not torch.isclose(after[:, -1], before[:, -1]).all()

    def test_loss_is_a_scalar_with_named_terms_and_gradients_reach_everything(self) -> None:
        model = self.build()
        loss, terms = model.loss(text(8, (STEPS + 1) * model.chunk_size), seeded(0))
        assert loss.shape == ()
        assert terms
        assert all(term.shape == () and not term.requires_grad and term.isfinite() for term in terms.values())
        loss.backward()
        for name, parameter in model.trainable_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name

    def test_the_generator_alone_decides(self) -> None:
        model = self.build()
        tokens = text(8, (STEPS + 1) * model.chunk_size)
        state = torch.get_rng_state()
        with torch.no_grad():
            losses = [model.loss(tokens, seeded(1))[0] for _ in range(2)]
            hidden = model.hidden_states(tokens).flatten(0, 1)
            draws = [model.draw(hidden, 3, seeded(seed)) for seed in (1, 1, 2)]
        assert losses[0] == losses[1]
        assert torch.equal(draws[0], draws[1])
        assert not torch.equal(draws[0], draws[2])
        assert torch.equal(state, torch.get_rng_state())

    def test_a_row_does_not_depend_on_the_others(self) -> None:
        model = self.build()
        with torch.no_grad():
            hidden = model.hidden_states(text(6, STEPS * model.chunk_size))[:, -1]
            everything = model.draw_rows(hidden, 5, [seeded(row) for row in range(6)])
            some = model.draw_rows(hidden[2:4], 5, [seeded(2), seeded(3)])
            alone = model.draw(hidden[4], 5, seeded(4))
        assert torch.equal(some, everything[:, 2:4])
        assert torch.equal(alone, everything[:, 4])

    def test_rows_of_a_micro_batch_can_be_shared_by_workers(self) -> None:
        model = self.build()
        if not model.draws_by_rows:
            pytest.skip("the model says that it draws otherwise")
        tokens = text(4, (STEPS + 1) * model.chunk_size)
        with torch.no_grad():
            whole = model.loss(tokens, seeded(3))[0]
            parts = []
            for start, stop in [(0, 2), (2, 4)]:
                noise = RowNoise(Rows(start, stop, 4), lambda own: own)
                parts.append(model.loss(tokens[start:stop], noise.manual_seed(3))[0])
        torch.testing.assert_close(torch.stack(parts).mean(), whole)

    def test_parameters_are_counted_exactly(self) -> None:
        model = self.build()
        counted = parameter_count(self.config(), self.autoencoder(), V).total
        assert counted == sum(parameter.numel() for _, parameter in model.trainable_parameters())

    def test_training_costs_what_torch_counts(self) -> None:
        config = self.config()
        model, sequences = self.build(), 64

        def counted(rows: int) -> float:
            tokens = text(rows, (STEPS + 1) * model.chunk_size)
            return counted_flops(lambda: model.loss(tokens, seeded(0))[0].backward())

        per_step = (counted(2 * sequences) - counted(sequences)) / sequences / STEPS
        told = training_flops(config, self.autoencoder(), V, STEPS).total * model.chunk_size
        assert told == pytest.approx(per_step, rel=self.training_tolerance)

    def test_drawing_costs_what_torch_counts(self) -> None:
        config, model = self.config(), self.build()
        model.requires_grad_(False)
        hidden = torch.randn(1, self.state_size)
        counted = counted_flops(lambda: model.embed(model.draw(hidden, 1, seeded(0))[0]))
        parts = inference_flops(config, self.autoencoder(), V, STEPS).parts
        told = sum(flops for name, flops in parts.items() if name not in ("backbone", "attention"))
        assert told * model.chunk_size == pytest.approx(counted, rel=1e-6)

    def test_continuations_with_targets_are_those_without(self) -> None:
        model = self.build()
        size = model.chunk_size
        windows = text(2, 12 * size)
        positions = [2 * size, 3 * size, 5 * size]
        targets = torch.stack([windows[:, position : position + 4] for position in positions], dim=1)
        free = sample_continuations(model, windows, positions, 6, 4, [seeded(0), seeded(1)])
        known = sample_continuations(model, windows, positions, 6, 4, [seeded(0), seeded(1)], targets)
        assert free.shape == (2, 3, 6, 4)
        assert torch.equal(known[known >= 0], free[known >= 0])

    def test_text_is_generated_from_any_prompt_at_any_temperature(self) -> None:
        model = self.build()
        prompts = [[], [1], [1, 2, 3], [0, 1, 2, 3, 4, 0, 1]]
        for temperature in (1.0, 0.7):
            # Of both calls: where no candidate begins as a prompt ends, their number decides what is done instead.
            decoding = Decoding(temperature, max_draws=10_000)
            generators = [seeded(row) for row in range(len(prompts))]
            written = generate_batch(model, prompts, 5, generators, V - 1, decoding)
            assert all(0 < len(row.tokens) <= 5 or row.ended for row in written)
            again = generate_batch(model, prompts[2:], 5, [seeded(2), seeded(3)], V - 1, decoding)
            assert [row.tokens for row in again] == [row.tokens for row in written[2:]]

    def test_a_saved_model_is_the_same_model(self, tmp_path: Path) -> None:
        model = self.build()
        model.save(tmp_path)
        loaded = load_language_model(tmp_path, trusted_heads=self.trusted)
        with torch.no_grad():
            hidden = model.hidden_states(text(2, STEPS * model.chunk_size))
            assert torch.equal(loaded.hidden_states(text(2, STEPS * model.chunk_size)), hidden)
            assert torch.equal(loaded.draw(hidden, 3, seeded(0)), model.draw(hidden, 3, seeded(0)))


class ExactFamilyConformance(FamilyConformance):
    """For families with exact probabilities: sums, draws, temperature, known beginnings and traces besides."""

    likelihood = "exact"

    def exact(self) -> ExactModel:
        """An untrained model."""
        model = self.build()
        assert isinstance(model, ExactModel)
        return model

    def test_exact_probabilities_sum_to_one_and_agree_with_what_is_drawn(self) -> None:
        model = self.exact()
        size = model.chunk_size
        every = torch.tensor(list(product(range(V), repeat=size)))
        with torch.no_grad():
            hidden = model.hidden_states(text(1, STEPS * size))[0, -1]
            logs = model.log_probabilities(hidden.expand(len(every), -1), every)[0].sum(dim=-1)
            drawn = model.draw(hidden, 40_000, seeded(0))
        probability = logs.exp()
        assert float(probability.sum()) == pytest.approx(1, abs=1e-5)
        assert chi_square(drawn, probability) < 5
        torch.testing.assert_close(model.log_likelihoods(hidden.expand(len(every), -1), every, 0), logs)

    def test_temperature_and_known_beginnings_are_exact(self) -> None:
        model = self.exact()
        size, rows, temperature = model.chunk_size, 4_000, 0.6
        with torch.no_grad():
            hidden = model.hidden_states(text(1, STEPS * size))[0, -1].expand(rows, -1)
            known = [[3]] * rows if size > 1 else None
            generators = [seeded(row) for row in range(rows)]
            sampled = sample_chunks(model, hidden, Decoding(temperature), generators, known)
            every = torch.tensor(list(product(range(V), repeat=size)))
            state = model.begin(hidden[: len(every)])
            probability = torch.ones(len(every))
            for index in range(size):
                state = model.advance(state, every[:, index - 1]) if index else state
                if known is None or index >= 1:
                    tempered = (model.logits(state) / temperature).softmax(dim=-1)
                    probability *= tempered.gather(1, every[:, index : index + 1])[:, 0]
                else:
                    probability *= every[:, 0] == 3
        assert float(probability.sum()) == pytest.approx(1, abs=1e-5)
        assert chi_square(sampled.chunks, probability) < 5

    def test_traces_are_the_probabilities_of_the_text(self) -> None:
        model = self.exact()
        size = model.chunk_size
        windows = text(2, 8 * size)
        positions = [2 * size, 4 * size]
        traces = trace_continuations(model, windows, positions, 3, 4, [seeded(0), seeded(1)])
        with torch.no_grad():
            hidden = model.hidden_states(windows[:, :-size]).flatten(0, 1)
            chunks = windows[:, size:].unflatten(1, (-1, size)).flatten(0, 1)
            logs = model.log_probabilities(hidden, chunks)[0].view(2, -1)
            for index, position in enumerate(positions):
                expected = logs[:, position - size : position - size + 4].exp()
                torch.testing.assert_close(traces.target[:, index], expected)
                # Along a drawn path, the collision is that of the distribution after it.
                for sample in range(3):
                    path = torch.cat([windows[:, :position], traces.tokens[:, index, sample]], dim=1)
                    for step in range(4):
                        chances = next_distribution(model, path[:, : position + step])
                        collision = chances.square().sum(dim=-1)
                        torch.testing.assert_close(traces.collision[:, index, sample, step], collision)


class BoundedFamilyConformance(FamilyConformance):
    """For families that know a lower bound of their log-likelihood: that it is one, besides."""

    likelihood = "bound"

    def test_a_bound_lies_below_and_its_mean_is_steady(self) -> None:
        model = self.build()
        size = model.chunk_size
        every = torch.tensor(list(product(range(V), repeat=size)))
        with torch.no_grad():
            hidden = model.hidden_states(text(1, STEPS * size))[0, -1].expand(len(every), -1)
            logs = model.log_likelihoods(hidden, every, 64, seeded(0))
        assert logs.shape == (len(every),)
        assert float(logs.exp().sum()) < 1.05


def next_distribution(model: ExactModel, tokens: Tensor) -> Tensor:
    """Distribution of the token after ids [W, L]: [W, V], by reading all of the text anew."""
    size = model.chunk_size
    whole = tokens.shape[1] // size * size
    state = model.begin(model.hidden_states(tokens[:, :whole])[:, -1])
    for index in range(whole, tokens.shape[1]):
        state = model.advance(state, tokens[:, index])
    return model.next_probabilities(state)


def chi_square(drawn: Tensor, probability: Tensor) -> float:
    """How many standard deviations the chi-square statistic of chunks [N, K] lies above its mean."""
    codes = sum(
        (drawn[:, index] * V ** (drawn.shape[1] - 1 - index) for index in range(drawn.shape[1])), drawn[:, 0] * 0
    )
    counts = torch.bincount(codes, minlength=len(probability)).double()
    expected = probability.double() * len(drawn)
    assert float(counts[expected < 1e-9].sum()) == 0
    often = expected > 5
    statistic = ((counts - expected)[often] ** 2 / expected[often]).sum()
    freedom = int(often.sum())
    return float((statistic - freedom) / math.sqrt(2 * freedom))


def text(rows: int, length: int) -> Tensor:
    """Random ids [rows, length], of which a row does not depend on how many there are."""
    return torch.stack([torch.randint(V, (length,), generator=seeded(100 + row)) for row in range(rows)])


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)
