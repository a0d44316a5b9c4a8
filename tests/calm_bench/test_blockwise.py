"""Blocks change memory, never results."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
import torch
from torch.nn import functional

from calm_bench import blockwise, logit_parts
from calm_bench.logit_parts import FEW_ROWS, PART_LOGITS, SUMMED_ROWS, drawn_parts

ROWS, WIDTH, VOCABULARY = 37, 8, 50


@pytest.mark.parametrize("max_logits", [1, VOCABULARY, 7 * VOCABULARY, 1 << 20])
def test_cross_entropy_and_its_gradients(max_logits: int) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(ROWS, WIDTH, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(VOCABULARY, (ROWS,))
    loss = blockwise.cross_entropy(hidden, weight, targets, max_logits)
    plain = functional.cross_entropy(hidden @ weight.T, targets)
    torch.testing.assert_close(loss.double(), plain, atol=1e-6, rtol=1e-6)
    ours = torch.autograd.grad(loss, (hidden, weight))
    theirs = torch.autograd.grad(plain, (hidden, weight))
    torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-5)


@torch.no_grad()
def test_without_gradients_the_loss_is_the_same_and_none_is_computed() -> None:
    hidden, weight = torch.randn(ROWS, WIDTH), torch.randn(VOCABULARY, WIDTH, requires_grad=True)
    targets = torch.randint(VOCABULARY, (ROWS,))
    loss = blockwise.cross_entropy(hidden, weight, targets, 7 * VOCABULARY)
    assert loss.grad_fn is None
    with torch.enable_grad():
        assert torch.equal(loss, blockwise.cross_entropy(hidden, weight, targets, 7 * VOCABULARY).detach())


@pytest.mark.parametrize("max_logits", [1, 7 * VOCABULARY, 1 << 20])
def test_a_weighted_sum_and_its_gradients(max_logits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "MAX_LOGITS", max_logits)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(ROWS, WIDTH, generator=generator, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator, requires_grad=True)
    targets = torch.randint(VOCABULARY, (ROWS,), generator=generator)
    scale = torch.rand(ROWS, generator=generator)
    scale[::5] = 0
    loss = blockwise.weighted_cross_entropy(hidden, weight, targets, scale)
    plain = (scale * functional.cross_entropy(hidden @ weight.T, targets, reduction="none")).sum()
    torch.testing.assert_close(loss, plain)
    given = torch.autograd.grad(3 * loss, (hidden, weight))
    torch.testing.assert_close(given, torch.autograd.grad(3 * plain, (hidden, weight)), atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(blockwise.weighted_cross_entropy(hidden, weight, targets, scale), plain)


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
@pytest.mark.parametrize("is_weighted", [False, True])
def test_a_thousand_blocks_under_bf16_have_the_gradients_of_fp32(
    is_weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words of natural frequencies: summed in bf16, the gradient of the frequent ones stops growing."""
    generator = torch.Generator().manual_seed(0)
    rows, blocks = 8, 1000
    monkeypatch.setattr(blockwise, "MAX_LOGITS", rows * VOCABULARY)
    hidden = torch.randn(rows * blocks, WIDTH, generator=generator, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator, requires_grad=True)
    frequencies = 1 / torch.arange(1, VOCABULARY + 1)
    targets = torch.multinomial(frequencies, len(hidden), replacement=True, generator=generator)
    scale = 1 + 3 * torch.rand(len(hidden), generator=generator) if is_weighted else torch.ones(len(hidden))
    plain = functional.cross_entropy(hidden @ weight.T, targets, reduction="none")
    expected = torch.autograd.grad((scale * plain).mean(), (hidden, weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        if is_weighted:
            loss = blockwise.weighted_cross_entropy(hidden, weight, targets, scale) / len(hidden)
        else:
            loss = blockwise.cross_entropy(hidden, weight, targets)
    for ours, theirs in zip(torch.autograd.grad(loss, (hidden, weight)), expected, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.01 * theirs.norm()


@pytest.mark.parametrize("at_once", [1, 5 * VOCABULARY, 1 << 20])
def test_softmaxes_of_a_few_rows_are_those_of_all_to_the_bit(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(ROWS, WIDTH, generator=generator, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator, requires_grad=True)
    targets = torch.randint(VOCABULARY, (ROWS,), generator=generator)
    logits = (hidden @ weight.T).detach()
    log_probabilities = logits.log_softmax(dim=-1)
    of_logits = log_probabilities.exp()
    of_logits[range(ROWS), targets] -= 1
    monkeypatch.setattr(blockwise, "SOFTMAX_LOGITS", at_once)
    loss = blockwise.cross_entropy(hidden, weight, targets)
    assert torch.equal(loss, functional.nll_loss(log_probabilities, targets, reduction="sum") / ROWS)
    of_hidden, of_weight = torch.autograd.grad(loss, (hidden, weight))
    scale = torch.tensor(1.0) / ROWS
    assert torch.equal(of_hidden, of_logits @ weight.detach() * scale)
    summed = torch.zeros_like(weight).addmm_(of_logits.T, hidden.detach())
    assert torch.equal(of_weight, summed.detach() * scale)


@pytest.mark.parametrize("rows", [150, 224, 384, 385, 409, 577, 600, 1537, 2040])
@pytest.mark.parametrize("part", [1, 500 * VOCABULARY])
def test_parts_on_a_cpu_have_the_gradients_of_the_whole_to_the_bit(
    rows: int, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, WIDTH, generator=generator, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator, requires_grad=True)
    targets = torch.randint(VOCABULARY, (rows,), generator=generator)

    def gradients(logits: int) -> tuple[torch.Tensor, ...]:
        monkeypatch.setattr(logit_parts, "PART_LOGITS", logits)
        loss = blockwise.cross_entropy(hidden, weight, targets)
        return loss, *torch.autograd.grad(loss, (hidden, weight))

    whole, parted = gradients(rows * VOCABULARY * SUMMED_ROWS), gradients(part)
    assert torch.equal(whole[0], parted[0])
    assert torch.equal(whole[1], parted[1])
    torch.testing.assert_close(whole[2], parted[2])
    if sums_as_parts_end():
        assert torch.equal(whole[2], parted[2])


def sums_as_parts_end() -> bool:
    """Whether this machine's matrix products sum as many rows at a time as parts have."""
    rows, columns = torch.randn(2 * SUMMED_ROWS, VOCABULARY), torch.randn(2 * SUMMED_ROWS, WIDTH)
    summed = torch.zeros(VOCABULARY, WIDTH)
    for part, other in zip(rows.split(SUMMED_ROWS), columns.split(SUMMED_ROWS), strict=True):
        summed.addmm_(part.T, other)
    return torch.equal(summed, torch.zeros(VOCABULARY, WIDTH).addmm_(rows.T, columns))


@pytest.mark.parametrize("vocab_size", [50, 4096, 128_256])
def test_parts_are_whole_sums_and_none_is_small(vocab_size: int) -> None:
    for rows in range(1, 1300):
        *parts, last = logit_parts.logit_parts(rows, vocab_size)
        assert sum(parts) + last == rows
        assert not any(part % SUMMED_ROWS for part in parts)
        assert not parts or (last >= FEW_ROWS and not SUMMED_ROWS < last < 2 * SUMMED_ROWS)
        assert max([*parts, last]) < max(PART_LOGITS // vocab_size, SUMMED_ROWS) + 2 * SUMMED_ROWS


@pytest.mark.parametrize("vocab_size", [50, 4096, 128_256])
@pytest.mark.parametrize("block", [1, 20, 523, 1024])
def test_parts_that_are_drawn_from_stay_inside_blocks_and_none_is_small(vocab_size: int, block: int) -> None:
    for rows in range(1, 1100, 7):
        ends = list(accumulate(drawn_parts(rows, block, vocab_size)))
        assert {*range(block, rows, block), rows} <= {*ends}
        assert ends[-1] == rows
        # What is small is a block by itself.
        small = [(begin, end) for begin, end in pairwise([0, *ends]) if end - begin < FEW_ROWS]
        assert all(begin % block == 0 and (end == rows or end % block == 0) for begin, end in small)


def test_the_gradients_may_be_asked_for_twice() -> None:
    hidden = torch.randn(ROWS, WIDTH, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, requires_grad=True)
    loss = 3 * blockwise.cross_entropy(hidden, weight, torch.zeros(ROWS, dtype=torch.long))
    first = torch.autograd.grad(loss, (hidden, weight), retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(loss, (hidden, weight))))


@pytest.mark.parametrize("rows", [0, 1, 3, ROWS])
@pytest.mark.parametrize("held", [1, ROWS * blockwise.SPAN, 1 << 22])
def test_argmax_of_a_part_of_the_vocabulary_after_the_other(
    held: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of the largest, wherever parts end; NaN is the largest of all."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randint(-2, 3, (rows, WIDTH), generator=generator).float()
    weight = torch.randint(-2, 3, (1000, WIDTH), generator=generator).float()
    weight[700] = torch.nan
    hidden[::5] = 0  # all words are equal, but for one
    plain = hidden @ weight.T
    monkeypatch.setattr(blockwise, "CACHED_LOGITS", held)
    assert torch.equal(blockwise.argmax(hidden, weight), plain.argmax(-1))
    assert torch.equal(blockwise.argmax(hidden, weight[:700]), plain[:, :700].argmax(-1))


def test_a_word_that_is_none_of_those_that_matter_need_not_be_found() -> None:
    generator = torch.Generator().manual_seed(1)
    hidden, weight = torch.randn(200, WIDTH, generator=generator), torch.randn(4096, WIDTH, generator=generator)
    weight[4000] = weight[17]  # the first of the largest is no other than before
    likeliest = (hidden @ weight.T).argmax(-1)
    among = torch.randint(4096, (200, 3), generator=generator)
    among[::2, 1] = likeliest[::2]
    among[likeliest == 17, 2] = 4000
    found = blockwise.argmax_among(hidden, weight, among)
    matters = (among == likeliest[:, None]).any(dim=1)
    assert torch.equal(found[matters], likeliest[matters])
    assert torch.equal(found.where(found >= 0, likeliest), likeliest)
    assert (found[1::2] == -1).float().mean() > 0.8


def test_words_that_round_to_different_sides_are_looked_at_whole() -> None:
    """A word is given up if another is likelier by more than products may err."""
    hidden, weight = torch.ones(2, 4), torch.zeros(4096, 4)
    hidden[1] = -1
    weight[0], weight[4095] = torch.tensor([1.0, 2.0**25, -(2.0**25), 0.0]), 2.0**-3
    among = torch.tensor([[4095], [0]])
    assert torch.equal(blockwise.argmax_among(hidden, weight, among), (hidden @ weight.T).argmax(-1))
    weight[0] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert blockwise.argmax_among(hidden, weight, among).tolist() == [-1, -1]


@pytest.mark.parametrize("size", [blockwise.SPAN, 8 * blockwise.SPAN, 8 * blockwise.SPAN + 3, 4096, 5000])
def test_the_largest_is_the_first_of_equal_ones_wherever_spans_end(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    logits = torch.randint(40, (500, size), generator=generator).float()
    logits[:20, -1], logits[20:40, 0] = 50.0, 50.0
    logits[40:80, torch.randint(size, (3,), generator=generator)] = torch.nan
    assert torch.equal(blockwise.largest(logits), logits.argmax(dim=-1))


def test_no_block_holds_more_logits_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    original = functional.linear

    def watched(*arguments: torch.Tensor) -> torch.Tensor:
        result = original(*arguments)
        held.append(result.numel())
        return result

    product = torch.mm

    def watched_product(*arguments: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        held.append(out.numel())
        return product(*arguments, out=out)

    monkeypatch.setattr(functional, "linear", watched)
    monkeypatch.setattr(torch, "mm", watched_product)
    hidden, weight = torch.randn(ROWS, WIDTH, requires_grad=True), torch.randn(VOCABULARY, WIDTH)
    blockwise.cross_entropy(hidden, weight, torch.zeros(ROWS, dtype=torch.long), 5 * VOCABULARY).backward()
    assert max(held) <= 5 * VOCABULARY
    held.clear()
    monkeypatch.setattr(blockwise, "CACHED_LOGITS", 3 * ROWS * blockwise.SPAN)
    blockwise.argmax(hidden, torch.randn(10 * blockwise.SPAN, WIDTH))
    assert held == [3 * ROWS * blockwise.SPAN] * 3 + [ROWS * blockwise.SPAN]
