"""FLOPs and parameters of each head, by its configuration, in closed form and without torch (but for custom heads).

Per backbone step (one chunk), matrix products only; :mod:`calm_bench.flops` has the rules. Symbols: d hidden size of
the backbone, w head width, Z latent size, N samples a position is trained on, M target draws, F time features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from calm_bench.head_config import (
    CustomHead,
    DiffusionHead,
    FlowHead,
    HeadConfig,
    MeanFlowHead,
    NetworkHead,
    OneStepHead,
    ShortcutHead,
)
from calm_bench.trusted_code import check_trusted

Accounting = Literal["implementation", "paper"]
"""``implementation``: what the code here computes. A head block's product with the condition does not depend on the
noise and is computed once a step, not once a sample; the frozen encoder's pass over the targets is included.

``paper``: the paper's figures. Every sample runs each block in full; the encoder's pass (0.7 % of training) and the
energy score itself are left out."""

FORWARD_AND_BACKWARD = 3


@dataclass(frozen=True)
class HeadCost:
    """What a head costs for one chunk, and its parameters."""

    training: float
    """FLOPs of the head's network, forward and backward."""
    score: float
    """FLOPs of the training loss beside the network."""
    inference: float
    """FLOPs of one sample for one sequence alone, all its steps included."""
    parameters: int


def head_cost(head: HeadConfig, hidden_size: int, latent_size: int, accounting: Accounting) -> HeadCost:
    """The cost of ``head`` on a backbone of ``hidden_size``.

    Raises:
        UntrustedCode: a class from elsewhere that the user did not name.
    """
    if isinstance(head, OneStepHead):
        return _one_step(head, hidden_size, latent_size, accounting)
    if isinstance(head, CustomHead):
        check_trusted(head.target)
        return _counted(head.model_dump_json(), hidden_size, latent_size)
    if isinstance(head, DiffusionHead):
        outputs = 2 * latent_size if head.objective == "noise" else latent_size
        passes = head.num_steps
    else:
        outputs = latent_size
        passes = head.num_steps * (2 if isinstance(head, FlowHead) and head.solver == "midpoint" else 1)
    network = _Network(head, hidden_size, latent_size, outputs)
    training = FORWARD_AND_BACKWARD * (network.condition + head.num_samples * network.sample)
    # The noised latents and the times are data: no gradient is taken for them.
    training -= head.num_samples * network.inputs
    if isinstance(head, ShortcutHead):
        # A target is two passes without a gradient.
        training += head.num_shortcuts * 2 * network.sample
    if isinstance(head, MeanFlowHead):
        # A derivative is three passes without a gradient: the velocity, and one to either side.
        training += head.num_jumps * 3 * network.sample
    return HeadCost(training, 0.0, network.condition + passes * network.sample, network.parameters)


class _Network:
    """The AdaLN network: FLOPs once a position and once a sample, and parameters."""

    def __init__(self, head: NetworkHead, hidden_size: int, latent_size: int, outputs: int) -> None:
        d, w, blocks = hidden_size, head.width or hidden_size, head.num_blocks
        times = 2 if isinstance(head, ShortcutHead | MeanFlowHead) else 1
        time = times * (head.time_features * w + w * w)
        weights = time + latent_size * w + blocks * 5 * w * w + 2 * w * w + w * outputs
        self.condition = 2.0 * d * w
        self.inputs = 2.0 * (times * head.time_features + latent_size) * w
        self.sample = 2.0 * weights
        biases = times * 2 * w + w + w + blocks * 5 * w + 2 * w + outputs
        self.parameters = d * w + weights + biases + blocks * 2 * w


@cache
def _counted(head: str, hidden_size: int, latent_size: int) -> HeadCost:
    """No closed form is known for a class from elsewhere: torch counts one pass of it."""
    from calm_bench.heads.custom import counted_cost

    training, inference, parameters = counted_cost(CustomHead.model_validate_json(head), hidden_size, latent_size)
    return HeadCost(training, 0.0, inference, parameters)


def _one_step(head: OneStepHead, hidden_size: int, latent_size: int, accounting: Accounting) -> HeadCost:
    """[2w -> w -> w -> 2w -> w] in each block, w -> w -> Z at the end."""
    width, blocks = head.width or hidden_size, head.num_blocks
    once = hidden_size * width
    each = head.noise_size * width + blocks * 6 * width * width + width * width + width * latent_size
    if accounting == "implementation":
        shared = blocks * width * width
        once, each = once + shared, each - shared
    # Two linear layers with biases, then a LayerNorm with scale and shift.
    embeddings = (head.noise_size + 1) * width + (hidden_size + 1) * width + 4 * width
    block = 6 * width * width + 5 * width + 2 * width
    final = (width + 1) * width + (width + 1) * latent_size + 2 * width
    pairs = head.num_samples * head.num_targets + head.num_samples * (head.num_samples - 1) / 2
    return HeadCost(
        training=FORWARD_AND_BACKWARD * 2.0 * (once + head.num_samples * each),
        # Only the samples get a gradient, so the backward pass costs as much as the forward.
        score=2 * 2.0 * pairs * latent_size if accounting == "implementation" else 0.0,
        inference=2.0 * (once + each),
        parameters=embeddings + blocks * block + final,
    )
