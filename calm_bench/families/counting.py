"""What a network costs beside its backbone, as torch counts: for families without closed forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, addmm_flop

from calm_bench.config import LanguageModel
from calm_bench.own_contract import learnable_loss

FEW, MANY = 4, 8
"""Sequences of the two passes that are counted; their difference leaves out what a batch costs once."""
STEPS = 4
"""Chunks of a sequence that are predicted in these passes."""


def counted_flops(run: Callable[[], object]) -> float:
    """Matrix products that torch executes in ``run``, 2 FLOPs per multiply-add; attention counted in full.

    On a CPU the fused attention kernel is not counted, so attention runs in its plain form, as two matrix products.
    """

    def in_place(total: torch.Size, first: torch.Size, second: torch.Size, **_: Any) -> int:
        return int(addmm_flop(total, first, second))

    # torch counts addmm, and not the same product added in place.
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place})
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), counter:
        run()
    return float(counter.get_total_flops())


def counted_cost(
    config: LanguageModel, network: Callable[[LanguageModel, int], Any], vocab_size: int, target: str
) -> tuple[float, float, float]:
    """FLOPs of training a chunk (forward and backward), FLOPs of drawing one chunk and embedding it, and parameters,
    all without the backbone's layers and the embedding table.

    Args:
        network: builds a :class:`calm_bench.lm.base.ChunkLanguageModel` from its configuration and the vocabulary's
            size.
        target: what messages call it, as ``module:NAME``.

    Raises:
        BrokenContract: its loss is none.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = network(config, vocab_size)
    generator = torch.Generator().manual_seed(0)
    size = model.chunk_size

    def trained(sequences: int) -> float:
        tokens = torch.randint(vocab_size, (sequences, (STEPS + 1) * size), generator=generator)
        inputs = torch.randn(sequences, STEPS, config.hidden_size, requires_grad=True)
        whole = counted_flops(lambda: learnable_loss(target, model.loss(tokens, generator)).backward())
        return whole - counted_flops(lambda: model.backbone(inputs).sum().backward())

    training = (trained(MANY) - trained(FEW)) / (MANY - FEW) / STEPS
    model.requires_grad_(False)
    hidden = torch.randn(1, config.hidden_size, generator=generator)
    inference = counted_flops(lambda: model.embed(model.draw(hidden, 1, generator)[0]))
    inner = {id(parameter) for parameter in model.backbone.parameters()}
    own = sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in inner)
    return training, inference, float(own)
