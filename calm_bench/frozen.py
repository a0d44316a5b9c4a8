"""What all parts of a configuration are made of."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Frozen(BaseModel):
    """Immutable, and an unknown key is an error rather than a silent no-op."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, data: Any) -> Any:
        """Refuse ``seed: true``, which would be 1."""
        if isinstance(data, dict):
            for name, value in data.items():
                if isinstance(value, bool) and name in _numbers(cls):
                    raise ValueError(f"{name}: {str(value).lower()} is a truth value, and a number is wanted")
        return data


@cache
def _numbers(model: type[BaseModel]) -> frozenset[str]:
    """Fields of ``model`` that are numbers and no truth values."""
    kinds = {name: set(_kinds(field.annotation)) for name, field in model.model_fields.items()}
    return frozenset(name for name, found in kinds.items() if found & {int, float} and not found & {bool, Any})


def _kinds(annotation: Any) -> list[Any]:
    """The alternatives in an annotation such as ``int | None``; what is inside of collections is none of them."""
    if getattr(annotation, "__origin__", None) in (tuple, list, dict, frozenset, set):
        return []
    parts = get_args(annotation)
    return [kind for part in parts for kind in _kinds(part)] if parts else [annotation]
