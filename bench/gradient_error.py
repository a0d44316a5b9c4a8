"""Errors of the gradient of a vocabulary-sized weight in bf16, by the number of blocks it is summed over.

    python -m bench.gradient_error

Against fp32, relative: of :func:`calm_bench.blockwise.cross_entropy`, which sums blocks in fp32, and of blocks of
``functional.cross_entropy`` under autocast, whose gradients autograd sums in bf16, and of torch's own
``linear_cross_entropy`` in as many chunks, with the error of its loss in nats. States are random, targets have the
frequencies of words (Zipf).
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn import LinearCrossEntropyOptions, functional

from calm_bench import blockwise

ROWS, WIDTH, VOCABULARY = 8192, 64, 4096
BLOCKS = [1, 64, 256, 512, 4096]


def main() -> None:
    warnings.filterwarnings("ignore", message="Mismatch dtype")
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(ROWS, WIDTH, generator=generator)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator) * WIDTH**-0.5
    frequencies = 1 / torch.arange(1, VOCABULARY + 1)
    targets = torch.multinomial(frequencies, ROWS, replacement=True, generator=generator)

    def by_autograd(own: Tensor, rows: int) -> Tensor:
        blocks = zip(hidden.split(rows), targets.split(rows), strict=True)
        # A weight that autocast meets as it is, it casts once for all blocks.
        logits = ((functional.linear(block, own).float(), wanted) for block, wanted in blocks)
        losses = [functional.cross_entropy(each, wanted, reduction="sum") for each, wanted in logits]
        return torch.stack(losses).sum() / ROWS

    def here(own: Tensor, rows: int) -> Tensor:
        return blockwise.cross_entropy(hidden, own, targets, rows * VOCABULARY)

    def by_torch(own: Tensor, rows: int) -> Tensor:
        options = LinearCrossEntropyOptions(batch_chunk_size=rows)
        return functional.linear_cross_entropy(hidden.bfloat16(), own.bfloat16(), targets, options=options)

    own = weight.clone().requires_grad_()
    exact = float(functional.cross_entropy(hidden @ weight.T, targets))
    (truth,) = torch.autograd.grad(functional.cross_entropy(hidden @ own.T, targets), own)
    print("| blocks | summed in fp32, as here | summed in bf16 | linear_cross_entropy | its loss is off by |")
    print("|---|---|---|---|---|")
    for blocks in BLOCKS:
        found = []
        for loss in (here, by_autograd, by_torch):
            own = weight.clone().requires_grad_()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                value = loss(own, ROWS // blocks)
            found.append(torch.autograd.grad(value, own)[0])
        ours, others, theirs = (float((each.float() - truth).norm() / truth.norm()) for each in found)
        off = abs(float(value.detach()) - exact)
        print(f"| {blocks} | {ours:.2%} | {others:.2%} | {theirs:.2%} | {off:.3f} |", flush=True)


if __name__ == "__main__":
    main()
