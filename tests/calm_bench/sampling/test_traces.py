"""Exact probabilities at all positions at once against the plain computation, one text at a time."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Generator, Tensor

from calm_bench import blockwise, logit_parts
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.finite import NotFinite
from calm_bench.lm import TokenModel
from calm_bench.logit_parts import FEW_ROWS
from calm_bench.sampling.traces import Traces, trace_continuations

VOCAB_SIZE = 5
POSITIONS = [1, 2, 5, 9, 12]
WINDOWS = torch.randint(VOCAB_SIZE, (3, 16), generator=Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model() -> TokenModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_layers": 2, "num_attention_heads": 4}
    config = LanguageModelConfig.model_validate({"kind": "token", "chunk_size": 1, "num_key_value_heads": 2, **sizes})
    model = TokenModel(config, VOCAB_SIZE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return model.eval()


def trace(model: TokenModel, which: list[int], num_samples: int = 6, squared: bool = True, **settings: int) -> Traces:
    generators = [Generator().manual_seed(100 + index) for index in which]
    return trace_continuations(model, WINDOWS[which], POSITIONS, num_samples, 4, generators, squared, **settings)


def probabilities(model: TokenModel, text: Tensor) -> Tensor:
    """``[len(text), V]`` of the token after each prefix."""
    with torch.no_grad():
        return model.probabilities(model.hidden_states(text[None]))[0]


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("block_samples", [1, 40, 4096])
def test_agrees_with_one_text_at_a_time(model: TokenModel, squared: bool, block_samples: int) -> None:
    traces = trace(model, [0, 1, 2], squared=squared, block_samples=block_samples)
    assert [tuple(part.shape) for part in traces] == [(3, 5, 4), (3, 5, 6, 3), (3, 5, 6, 4)]
    for (w, window), (p, position) in itertools.product(enumerate(WINDOWS), enumerate(POSITIONS)):
        after = probabilities(model, window[: position + 3])[position - 1 :]
        target = window[position : position + 4]
        torch.testing.assert_close(traces.target[w, p], after.gather(1, target[:, None])[:, 0], atol=1e-5, rtol=1e-4)
        for tokens, collision in zip(traces.tokens[w, p], traces.collision[w, p], strict=True):
            after = probabilities(model, torch.cat([window[:position], tokens]))[position - 1 :]
            torch.testing.assert_close(collision, after.square().sum(dim=-1), atol=1e-5, rtol=1e-4)
    # It would prove little if the samples of a position were all alike.
    assert len({tuple(tokens) for tokens in traces.tokens.flatten(0, 2).tolist()}) > 20


def test_a_window_does_not_depend_on_its_batch(model: TokenModel) -> None:
    together, alone = trace(model, [0, 1, 2]), trace(model, [1])
    assert torch.equal(together.tokens[[1]], alone.tokens)
    torch.testing.assert_close(together.collision[[1]], alone.collision)
    small = trace(model, [0, 1, 2], block_samples=1)
    assert torch.equal(together.tokens, small.tokens)


@pytest.mark.parametrize("squared", [False, True])
def test_tokens_are_drawn_from_the_distribution_or_its_square(model: TokenModel, squared: bool) -> None:
    traces = trace(model, [0], num_samples=20_000, squared=squared)
    for p, position in enumerate(POSITIONS):
        weights = probabilities(model, WINDOWS[0][:position])[-1].double() ** (2 if squared else 1)
        expected = weights / weights.sum()
        found = torch.bincount(traces.tokens[0, p, :, 0], minlength=VOCAB_SIZE) / 20_000
        assert ((found - expected).abs() < 4 * (expected * (1 - expected) / 20_000).sqrt() + 1e-9).all()


def test_parts_of_a_block_have_its_bits(model: TokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def traced() -> Traces:
        return trace_continuations(model, WINDOWS, range(1, 13), 8, 4, generators, until_apart=True)

    found = []
    monkeypatch.setattr(logit_parts, "DRAWN_LOGITS", 0)
    for rows in (1 << 20, FEW_ROWS, 19):
        monkeypatch.setattr(logit_parts, "DRAWN_ROWS", rows)
        generators = [Generator().manual_seed(index) for index in range(len(WINDOWS))]
        found.append(traced())
    whole, *parted = found
    assert (whole.tokens[..., -1] >= 0).sum() > 3 * FEW_ROWS  # several parts, to the last token
    assert all(torch.equal(*both) for traces in parted for both in zip(whole, traces, strict=True))


@pytest.mark.parametrize(("most", "products"), [(1, [16, 29]), (44, [16, 29]), (45, [45])])
def test_neighbouring_parts_share_a_product(
    model: TokenModel, most: int, products: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to as many rows as are best multiplied together."""
    monkeypatch.setattr(logit_parts, "DRAWN_LOGITS", 0)
    monkeypatch.setattr(logit_parts, "DRAWN_ROWS", 16)
    monkeypatch.setattr(blockwise, "decoding_rows", lambda weight: most)
    rows: list[int] = []
    hook = model.lm_head.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    traces = trace_continuations(model, WINDOWS, range(1, 16), 2, 1, [Generator()] * 3, True)
    hook.remove()
    assert traces.target.shape == (3, 15, 1)
    assert rows == products


def test_single_tokens_need_no_continuation(model: TokenModel) -> None:
    generators = [Generator().manual_seed(0)]
    traces = trace_continuations(model, WINDOWS[:1], [3, 15], 2, 1, generators)
    assert [tuple(part.shape) for part in traces] == [(1, 2, 1), (1, 2, 2, 0), (1, 2, 2, 1)]
    after = probabilities(model, WINDOWS[0][:3])[-1]
    torch.testing.assert_close(traces.collision[0, 0, :, 0], after.square().sum().expand(2))


@pytest.mark.parametrize("num_samples", [2, 6])
def test_a_sample_that_parted_from_all_others_is_not_continued(model: TokenModel, num_samples: int) -> None:
    generators = [[Generator().manual_seed(100 + index) for index in range(3)] for _ in range(2)]
    whole, stopped = (
        trace_continuations(model, WINDOWS, POSITIONS, num_samples, 4, own, until_apart=apart)
        for own, apart in zip(generators, (False, True), strict=True)
    )
    torch.testing.assert_close(stopped.target, whole.target, rtol=0, atol=0)
    ended = 0
    for index in itertools.product(range(3), range(len(POSITIONS)), range(num_samples)):
        w, p, s = index
        others = [other for other in range(num_samples) if other != s]
        agree = [(whole.tokens[w, p, others, :n] == whole.tokens[w, p, s, :n]).all(dim=-1).any() for n in range(4)]
        reached = sum(map(bool, agree))  # beginnings of 0 to H - 1 tokens that it shares
        assert stopped.tokens[index].tolist() == [*whole.tokens[index][:reached].tolist(), -1, -1, -1][:3]
        torch.testing.assert_close(stopped.collision[index][:reached], whole.collision[index][:reached])
        assert not stopped.collision[index][reached:].any()
        ended += reached < 4
    assert 0 < ended < stopped.tokens[..., 0].numel()


def test_nan_is_an_error(model: TokenModel) -> None:
    weight = model.lm_head.weight.detach().clone()
    with torch.no_grad():
        model.lm_head.weight[3, 0] = torch.nan
    try:
        with pytest.raises(NotFinite, match="logits are not finite"):
            trace(model, [0])
    finally:
        with torch.no_grad():
            model.lm_head.weight.copy_(weight)


@pytest.mark.parametrize(
    ("positions", "message"),
    [([], "increasing"), ([5, 3], "increasing"), ([0, 3], "do not fit a window of 16"), ([3, 13], "do not fit")],
)
def test_impossible_positions_are_refused(model: TokenModel, positions: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trace_continuations(model, WINDOWS[:1], positions, 2, 4, [Generator()])


def test_every_window_needs_a_generator(model: TokenModel) -> None:
    with pytest.raises(ValueError, match="3 windows need as many generators, found 1"):
        trace_continuations(model, WINDOWS, POSITIONS, 2, 4, [Generator()])
