"""One metric of one lm-eval task, with both its errors."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from calm_bench.frozen import Frozen

EXACT = "exact"


class TaskScore(Frozen):
    """A model's score on a task."""

    model_config = ConfigDict(allow_inf_nan=False)

    task: str
    metric: str
    value: float
    standard_error: float | None
    """Over documents, the noise of sampled scores included; None if it is not known."""
    monte_carlo_error: float | None
    """How far other draws would move the value on the same documents; 0 if scores are exact, None if not known."""
    num_documents: int
    num_samples: int | None
    """Draws of each chunk (of each position, for BrierLM); 0 if scores are exact, None if not known."""
    scorer: str
    """How choices were compared: ``exact`` is the likelihood."""
    protocol_hash: str
    """Hash of the questions: task, version, documents and prompts, and the length that was read where some did not fit
    into it. Equal hashes asked the same; how a model answered, by its likelihood or by a scorer, is told by ``scorer``
    and does not keep models apart."""
    higher_is_better: bool | None = None
    num_truncated: Annotated[int, Field(ge=0, exclude_if=lambda count: count == 0)] = 0
    """Documents of which a prompt was longer than what is read, and lost its beginning."""

    @property
    def name(self) -> str:
        """``stdlib_choice``; with the metric behind it where that is not plain accuracy."""
        return self.task if self.metric == "acc" else f"{self.task} {self.metric}"
