"""Temperature as a power of the probabilities: P_T(x) is proportional to P(x)^(n + a), n + a = 1/T."""

from __future__ import annotations

import math
from dataclasses import dataclass

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Power:
    """1/T as a whole number and the rest."""

    whole: int
    """n >= 1."""
    rest: float
    """a in [0, 1)."""

    @property
    def value(self) -> float:
        return self.whole + self.rest

    @staticmethod
    def of_temperature(temperature: float) -> Power:
        """
        Raises:
            ValueError: a temperature outside (0, 1], which samples alone cannot realise.
        """
        if not 0 < temperature <= 1:
            raise ValueError(
                f"temperature {temperature} is not in (0, 1]: a chunk model can be made more certain of what it "
                "samples, not less, and T = 0 would need infinitely many samples"
            )
        inverse = 1 / temperature
        # 1/(1/3) and the like must not become n - 1 and a rest of almost 1.
        whole = math.floor(inverse + _TOLERANCE * inverse)
        rest = inverse - whole
        return Power(whole, 0.0 if rest < _TOLERANCE * inverse else rest)
