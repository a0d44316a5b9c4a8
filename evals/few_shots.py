"""Examples before a question: as many and the same ones as lm-eval's own command takes."""

from __future__ import annotations

from typing import Any

SEED = 1234
"""lm-eval's own (``simple_evaluate(fewshot_random_seed=...)``), by which a task draws its examples."""


def choose_examples(task: Any) -> None:
    """Settle which examples ``task`` of lm-eval shows: what ``simple_evaluate`` does for tasks that leave it open.

    Its seeding of the process's generators is left out: nothing here may depend on them.
    """
    if task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=SEED)
