"""The one word by which a study trains all its language models equally long: ``budget: equal-flops``.

The amount is what the base experiment's own ``model.training`` pays for, or stands behind the word
(``equal-tokens 5e6``, ``equal-time 10min``). Every trial gets it in its own steps, whatever its K and its head.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from calm_bench.registry import did_you_mean

Equal = Literal["flops", "total-flops", "tokens", "time"]

WORDS: dict[str, Equal] = {
    "equal-flops": "flops",
    "equal-total-flops": "total-flops",
    "equal-tokens": "tokens",
    "equal-time": "time",
}
SECONDS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]*)?(?:e[-+]?[0-9]+)?)([a-z]*)")


@dataclass(frozen=True)
class Budget:
    """What is equal, and how much of it."""

    equal: Equal
    """``flops``: of the language model's training, as in the paper's comparison. ``total-flops``: the autoencoder's
    training is paid from it, too. ``tokens``: of text read. ``time``: seconds of training on this machine."""
    amount: float | None = None
    """FLOPs, tokens or seconds of each language model; unset means what the base experiment's budget comes to."""

    def __str__(self) -> str:
        word = f"equal-{self.equal}"
        if self.amount is None:
            return word
        return f"{word} {self.amount:.12g}{'s' if self.equal == 'time' else ''}"


def parse_budget(text: str) -> Budget:
    """``equal-flops``, ``equal-tokens 5e6``, ``equal-time 10min``.

    Raises:
        ValueError: another word (names the nearest), or an amount that is none.
    """
    parts = text.split()
    word = parts[0].lower() if parts else ""
    if word not in WORDS:
        raise ValueError(f"there is no budget {text!r}{did_you_mean(word, list(WORDS))}")
    equal = WORDS[word]
    if len(parts) == 1:
        return Budget(equal)
    return Budget(equal, _amount("".join(parts[1:]), equal))


def parse_seconds(text: str) -> float | None:
    """``90s``, ``10min``, ``2h``, ``1.5d`` in seconds; None for anything else."""
    matched = _AMOUNT.fullmatch(text.strip().lower().replace(" ", ""))
    if matched is None or matched[2] not in SECONDS:
        return None
    return float(matched[1]) * SECONDS[matched[2]]


def _amount(text: str, equal: Equal) -> float:
    if equal == "time":
        seconds = parse_seconds(text)
        if seconds is None or not 0 < seconds < math.inf:
            raise ValueError(f"equal-time {text}: give a time such as 90s, 10min, 2h or 1d")
        return seconds
    matched = _AMOUNT.fullmatch(text.lower())
    value = float(matched[1]) if matched and not matched[2] else 0.0
    if not 0 < value < math.inf:
        raise ValueError(
            f"equal-{equal} {text}: give a positive number of {'tokens' if equal == 'tokens' else 'FLOPs'}"
        )
    return value
