"""The content of code from elsewhere that a model is made of, which its configuration names and does not hold."""

from __future__ import annotations

from calm_bench.config import LanguageModel
from calm_bench.family_registry import FAMILIES
from calm_bench.head_config import CustomHead
from calm_bench.source_digest import code_digest

MODEL_CODE = ("head_code", "family_code")
"""Names of what :func:`model_code` finds."""


def model_code(model: LanguageModel) -> dict[str, str]:
    """Digests of the code of a head (``head_code``) and of a family (``family_code``) that do not ship here; empty for
    a model without such.

    Both are classes that the configuration names, or plug-ins of another distribution; what shipped code computes is
    told by the revisions of stages and families instead.
    """
    head = model.head.target if model.family.uses("head") and isinstance(model.head, CustomHead) else None
    target = model.custom.target if model.family.uses("custom") else None
    found = {
        "head_code": _digest_of(head),
        "family_code": FAMILIES.code_digest(model.kind) if target is None else _digest_of(target),
    }
    return {name: digest for name, digest in found.items() if digest is not None}


def _digest_of(target: str | None) -> str | None:
    return None if target is None else code_digest(target.partition(":")[0])
