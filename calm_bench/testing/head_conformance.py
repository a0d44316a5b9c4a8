"""What every head must do, whatever it is inside.

A head's test class inherits :class:`HeadConformance` and names a configuration; pytest then runs every test of it::

    from calm_bench.head_config import CustomHead
    from calm_bench.testing.head_conformance import HeadConformance


    class TestGaussian(HeadConformance):
        config = CustomHead(target="my_heads:GaussianHead")
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from calm_bench.head_config import HeadConfig
from calm_bench.head_costs import head_cost
from calm_bench.heads import HEADS, Head
from calm_bench.sampling.window_noise import Units
from calm_bench.trusted_code import targets_in, trust_code

P, D, Z = 7, 10, 3
"""Positions, hidden size, latent size: no two alike, and P unlike any number of samples."""


class PermutedDraws(TorchFunctionMode):
    """Every random tensor drawn inside has its positions (the dimension of size P) in another order."""

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self.order = order

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        drawn = func(*args, **(kwargs or {}))
        if func in (torch.rand, torch.randn, torch.randint):
            return drawn.index_select(list(drawn.shape).index(P), self.order)
        return drawn


class HeadConformance:
    """Inherit, set ``config``, and run: shapes, gradients, seeds, independence of rows, precision, FLOPs, learning."""

    config: ClassVar[HeadConfig]
    """Configuration of the head under test, with a ``kind`` that :data:`calm_bench.heads.HEADS` knows."""
    flops_tolerance: ClassVar[float] = 1e-6
    """Relative; a closed form may leave out that no gradient is taken for the network's inputs."""

    toy_distance: ClassVar[float] = 0.02
    """Energy distance between what is learned and the toy distribution, on the average over the contexts."""
    toy_steps: ClassVar[int] = 300
    toy_learning_rate: ClassVar[float] = 5e-3

    def build(self, hidden_size: int = D, latent_size: int = Z) -> Head:
        """The head with weights away from their initial values, of which some are zero."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            head = HEADS.get(self.config.kind)(self.config, hidden_size, latent_size)  # type: ignore[call-arg]
            with torch.no_grad():
                for parameter in head.parameters():
                    parameter += 0.1 * torch.randn_like(parameter)
        return head

    def test_samples_have_the_shape_of_their_contexts(self) -> None:
        head = self.build()
        for leading in [(), (P,), (2, P)]:
            hidden = torch.randn(*leading, D)
            assert head.sample(hidden, 4, seeded(0)).shape == (4, *leading, Z)

    def test_loss_is_a_scalar_with_named_terms(self) -> None:
        loss, terms = self.build().loss(*batch(), seeded(0))
        assert loss.shape == ()
        assert terms
        assert all(term.shape == () and not term.requires_grad and term.isfinite() for term in terms.values())

    def test_gradients_are_finite_and_reach_everything(self) -> None:
        head = self.build()
        hidden, *target = batch()
        hidden.requires_grad_()
        head.loss(hidden, *target, seeded(0))[0].backward()
        for name, tensor in [("hidden", hidden), *head.named_parameters()]:
            assert tensor.grad is not None, name
            assert tensor.grad.isfinite().all(), name
            assert tensor.grad.abs().sum() > 0, name

    def test_gradients_are_finite_at_the_start(self) -> None:
        """Where initial weights are zero, all samples coincide."""
        head = HEADS.get(self.config.kind)(self.config, D, Z)  # type: ignore[call-arg]
        head.loss(*batch(), seeded(0))[0].backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())

    def test_the_generator_alone_decides(self) -> None:
        head, data = self.build(), batch()
        state = torch.get_rng_state()
        first, again, other = (head.sample(data[0], 3, seeded(seed)) for seed in (1, 1, 2))
        losses = [head.loss(*data, seeded(seed))[0] for seed in (1, 1, 2)]
        assert torch.equal(first, again)
        assert not torch.isclose(first, other).any()
        assert losses[0] == losses[1] != losses[2]
        assert torch.equal(state, torch.get_rng_state())

    def test_samples_are_distinct(self) -> None:
        samples = self.build().sample(torch.zeros(D), 500, seeded(0))
        assert len(samples.unique(dim=0)) == 500

    def test_the_order_of_positions_does_not_matter(self) -> None:
        head, data = self.build(), batch()
        order = torch.randperm(P, generator=seeded(3))
        samples, (loss, _) = head.sample(data[0], 4, seeded(0)), head.loss(*data, seeded(0))
        shuffled = [part[order] for part in data]
        with PermutedDraws(order):
            torch.testing.assert_close(head.sample(shuffled[0], 4, seeded(0)), samples[:, order])
            torch.testing.assert_close(head.loss(*shuffled, seeded(0))[0], loss)

    def test_a_position_does_not_see_the_others(self) -> None:
        head = self.build()
        hidden = torch.randn(P, D)
        others = torch.cat([hidden[:1], torch.randn(P - 1, D)])
        samples, changed = head.sample(hidden, 4, seeded(0)), head.sample(others, 4, seeded(0))
        torch.testing.assert_close(changed[:, 0], samples[:, 0])
        assert not torch.isclose(changed[:, 1:], samples[:, 1:]).all()

    def test_a_row_with_a_generator_of_its_own_is_as_if_alone(self) -> None:
        head, hidden = self.build(), torch.randn(P, D)
        rows = head.sample_rows(hidden, 4, [seeded(row) for row in range(P)])
        assert rows.shape == (4, P, Z)
        for row in range(P):
            torch.testing.assert_close(rows[:, row], head.sample(hidden[row], 4, seeded(row)))
        others = head.sample_rows(hidden[3:], 4, [seeded(row) for row in range(3, P)])
        torch.testing.assert_close(others, rows[:, 3:])
        with pytest.raises(ValueError, match=f"{P} rows need as many generators, found 2"):
            head.sample_rows(hidden, 4, [seeded(0), seeded(1)])

    def test_a_sample_of_a_window_does_not_depend_on_which_others_go_on(self) -> None:
        head, hidden = self.build(), torch.randn(2 * P * 3, D)  # 2 windows, P positions, 3 samples

        def draw(chosen: list[int]) -> Tensor:
            units = Units([seeded(0), seeded(1)], P, 3, num_chunks=2)
            return head.sample_from(hidden[chosen], units.noise(slice(0, P), 1, torch.tensor(chosen)))

        everything = draw(list(range(len(hidden))))
        assert everything.shape == (len(hidden), Z)
        some = [0, 4, 5, 20, 21, 40]
        torch.testing.assert_close(draw(some), everything[some])

    def test_bfloat16_weights(self) -> None:
        head = self.build()
        hidden = torch.randn(P, D)
        single = head.sample(hidden, 4, seeded(0))
        half = copy.deepcopy(head).bfloat16().sample(hidden.bfloat16(), 4, seeded(0))
        assert (single.dtype, half.dtype) == (torch.float32, torch.bfloat16)
        assert (half.float() - single).abs().mean() < 0.1 * single.abs().mean()

    def test_mixed_precision_loss(self) -> None:
        head, data = self.build(), batch()
        expected, _ = head.loss(*data, seeded(0))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, _ = head.loss(*data, seeded(0))
        loss.backward()
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected.item(), rel=0.05)
        assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())

    def test_weights_make_the_whole_head(self) -> None:
        head = self.build()
        copied = HEADS.get(self.config.kind)(self.config, D, Z)  # type: ignore[call-arg]
        copied.load_state_dict(head.state_dict())
        hidden = torch.randn(P, D)
        assert torch.equal(copied.sample(hidden, 2, seeded(0)), head.sample(hidden, 2, seeded(0)))

    def test_parameters_are_counted_exactly(self) -> None:
        assert self.cost().parameters == sum(p.numel() for p in self.build().parameters())

    def test_training_costs_what_torch_counts(self) -> None:
        head = self.build()
        hidden, *target = batch()
        hidden.requires_grad_()
        counted = counted_flops(lambda: head.loss(hidden, *target, seeded(0))[0].backward())
        cost = self.cost()
        assert (cost.training + cost.score) * P == pytest.approx(counted, rel=self.flops_tolerance)

    def test_sampling_costs_what_torch_counts(self) -> None:
        head, hidden = self.build(), torch.randn(1, D)
        with torch.no_grad():
            counted = counted_flops(lambda: head.sample(hidden, 1, seeded(0)))
            batched = counted_flops(lambda: head.sample(hidden.expand(P, D), 1, seeded(0)))
        assert self.cost().inference == pytest.approx(counted, rel=1e-6)
        assert batched <= P * counted

    def cost(self) -> Any:
        trust_code(*targets_in(self.config.model_dump()))
        return head_cost(self.config, D, Z, "implementation")

    def test_a_toy_distribution_is_learned(self) -> None:
        """Two contexts in one dimension: two peaks of unlike weight, and one narrow peak off the centre."""
        generator, positions = seeded(0), 64
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            head = HEADS.get(self.config.kind)(self.config.model_copy(update={"width": 32}), 4, 1)  # type: ignore[call-arg]
        optimizer = torch.optim.Adam(head.parameters(), self.toy_learning_rate, betas=(0.9, 0.95))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.toy_steps)
        contexts = torch.eye(2, 4)
        context = torch.arange(positions) % 2
        for _ in range(self.toy_steps):
            mean = toy_means(context, generator)
            loss, _ = head.loss(contexts[context], mean, torch.full_like(mean, TOY_LOG_STD), generator)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            samples = head.sample(contexts, 2000, generator).squeeze(-1)
        truth = toy_means(torch.arange(2).repeat(2000, 1).flatten(), generator).view(2000, 2)
        truth = truth + torch.randn(truth.shape, generator=generator) * torch.tensor(TOY_LOG_STD).exp()
        distances = [energy_distance(samples[:, i], truth[:, i]) for i in range(2)]
        assert sum(distances) / 2 < self.toy_distance, distances


TOY_LOG_STD = -1.5


def toy_means(context: Tensor, generator: Generator) -> Tensor:
    """Centres [P, 1] of the posteriors: -1.5 or 1 in context 0, with chances 0.3 and 0.7; 0.8 in context 1."""
    left = torch.rand(context.shape, generator=generator) < 0.3
    two_peaks = torch.where(left, -1.5, 1.0)
    return torch.where(context == 0, two_peaks, 0.8).unsqueeze(-1)


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'| of two sets of numbers; 0 for equal distributions."""

    def spread(a: Tensor, b: Tensor) -> Tensor:
        return (a[:, None] - b[None, :]).abs().mean()

    return float(2 * spread(x, y) - spread(x, x) - spread(y, y))


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states [P, d] and posteriors [P, Z]."""
    generator = seeded(7)
    hidden = torch.randn(P, D, generator=generator)
    return hidden, torch.randn(P, Z, generator=generator), 0.2 * torch.randn(P, Z, generator=generator) - 1


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def counted_flops(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()
