"""Errors of the gradient of a vocabulary-sized weight in bf16, by the number of blocks it is summed over.

    python -m bench.gradient_error

Against fp32, relative: of :func:`calm_bench.blockwise.cross_entropy`, which sums blocks in fp32, and of blocks of
``functional.cross_entropy`` under autocast, whose gradients autograd sums in bf16. States are random, targets have
the frequencies of words (Zipf).
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn import functional

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

    own = weight.clone().requires_grad_()
    (truth,) = torch.autograd.grad(functional.cross_entropy(hidden @ own.T, targets), own)
    print("| blocks | summed in fp32, as here | summed in bf16 | its norm |")
    print("|---|---|---|---|")
    for blocks in BLOCKS:
        found = []
        for loss in (here, by_autograd):
            own = weight.clone().requires_grad_()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                value = loss(own, ROWS // blocks)
            found.append(torch.autograd.grad(value, own)[0])
        ours, others = (float((each - truth).norm() / truth.norm()) for each in found)
        print(f"| {blocks} | {ours:.2%} | {others:.2%} | x {float(found[1].norm() / truth.norm()):.2f} |", flush=True)


if __name__ == "__main__":
    main()
