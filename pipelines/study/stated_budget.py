"""What is equal among the language models of a study, with its amount."""

from __future__ import annotations

from dataclasses import replace

from pipelines.study.config import LENGTHS, Study
from pipelines.study.equal_budget import Budget, parse_budget
from pipelines.study.price import price_of
from pipelines.study.search_settings import paths_set


def budget_of(study: Study, vocab_size: int | None = None) -> Budget | None:
    """The budget of ``study`` with its amount: that of the word, or what the base experiment's own training comes to.

    ``equal-time`` without an amount keeps none: only a measurement tells.

    Args:
        vocab_size: of the base experiment's finished tokens; unset means what its configuration lets assume.

    Raises:
        ConfigurationError: the price of the base experiment cannot be told from its configuration.
    """
    if study.budget is None:
        return None
    budget = parse_budget(study.budget)
    if budget.amount is not None:
        return budget
    training = study.model.training
    if budget.equal == "time":
        return budget
    if budget.equal == "tokens":
        return replace(
            budget, amount=training.num_tokens or float(price_of(study.experiment(), vocab_size).model.tokens)
        )
    return replace(budget, amount=training.num_flops or price_of(study.experiment(), vocab_size).model.flops.total)


def stated_budget(study: Study, vocab_size: int | None = None) -> str | None:
    """What is equal among the language models of ``study``: its budget word, or what its configuration comes to.

    Without a word they have equal FLOPs or tokens where the base experiment's length is given in them and no trial
    sets another. ``equal-time`` without an amount has none here: only the study's folder knows it.
    """
    if study.budget is not None:
        return str(budget_of(study, vocab_size))
    training = study.model.training
    if any(path.startswith(LENGTHS) for path in paths_set(study.search)):
        return None
    if training.num_flops is not None:
        return str(Budget("flops", training.num_flops))
    return None if training.num_tokens is None else str(Budget("tokens", training.num_tokens))
