"""Every setting of a study by its path, with its default and what presets say, and the JSON schema of a study file."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import BaseModel

from calm_bench.presets import PRESETS
from calm_bench.problems import KIND
from pipelines.study.config import ANCHORS, Study

NO_DEFAULT = "–"  # noqa: RUF001
REQUIRED = object()
"""Stands for the default of a setting that has none."""
DRAFT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True)
class SettingPath:
    """A setting that ``KEY=VALUE`` and study files know."""

    path: str
    type: str
    """As annotated, without the modules of names."""
    default: str
    """As JSON; :data:`NO_DEFAULT` where there is none."""
    description: str
    presets: Mapping[str, str] = field(default_factory=dict)
    """Values as JSON by the name of the preset, where presets set it."""


def setting_paths() -> list[SettingPath]:
    """All settings, in the order of the configuration; those that only one kind of head has name it in their type."""
    return list({one.path: one for one in reversed(list(_walk(Study, "")))}.values())[::-1]


def study_schema() -> dict[str, Any]:
    """The JSON schema of a study file, for editors: what is not in it is refused, and nothing is required.

    ``preset`` stands in files alone, and a study without ``name`` has that of its file. Names that a setting is known
    to take are completed; it takes others too where the setting does.
    """
    # The page of settings by path is built where only the configuration is installed.
    from pipelines.study.known_values import known_values

    schema = Study.model_json_schema()
    schema["properties"] = {
        "preset": {"enum": list(PRESETS), "description": "Settings that stand below those of the file."},
        **schema["properties"],
    }
    schema.pop("required", None)
    schema["patternProperties"] = {f"^{ANCHORS}": {}}
    known = known_values()
    models: set[type[BaseModel]] = {Study, *_every_model(Study)}
    _require_kinds(schema, models)
    for model in models:
        described = schema if model is Study else schema["$defs"].get(model.__name__, {})
        properties = described.get("properties", {})
        for name, text in _descriptions(model).items():
            if name in properties:
                properties[name].setdefault("description", text)
        for name in properties:
            if values := known.get((model, name)):
                properties[name] = _completed(properties[name], values)
    return {"$schema": DRAFT, **schema, "title": "A study of calm-bench"}


def _require_kinds(schema: Mapping[str, Any], models: Iterable[type[BaseModel]]) -> None:
    """Only the default kind of several may go without saying so: settings that two kinds share are else of both."""
    for model in models:
        for info in model.model_fields.values():
            kinds = [] if _is_collection(info.annotation) else _models(info.annotation)
            for kind in kinds if len(kinds) > 1 else ():
                if KIND in kind.model_fields and not isinstance(info.default, kind):
                    described = schema["$defs"][kind.__name__]
                    described["required"] = sorted({KIND, *described.get("required", [])})


def _completed(setting: Mapping[str, Any], values: Sequence[str]) -> dict[str, Any]:
    """The schema of an open setting with ``values`` for editors to complete; what was allowed stays allowed."""
    rest = {key: value for key, value in setting.items() if key not in ("type", "anyOf")}
    return {"anyOf": [{"enum": list(values)}, *setting.get("anyOf", [{"type": setting.get("type")}])], **rest}


def _walk(model: type[BaseModel], prefix: str) -> Iterator[SettingPath]:
    for name, info in model.model_fields.items():
        path = f"{prefix}{name}"
        models = _models(info.annotation)
        if models and not _is_collection(info.annotation):
            if len(models) > 1:
                kinds = " | ".join(str(one.model_fields[KIND].default) for one in models if KIND in one.model_fields)
                yield _setting(f"{path}.{KIND}", kinds, _default_kind(info.default), "Which of them it is.")
            for one in models:
                yield from (each for each in _walk(one, f"{path}.") if not each.path.endswith(f"{path}.{KIND}"))
            continue
        default = REQUIRED if info.is_required() else info.get_default(call_default_factory=True)
        yield _setting(path, _type(info.annotation), _json(default), _descriptions(model).get(name, ""))


def _setting(path: str, type_: str, default: str, description: str) -> SettingPath:
    presets = {name: _json(value) for name, preset in PRESETS.items() if (value := _at(preset, path)) is not None}
    return SettingPath(path, type_, default, description, presets)


def _at(settings: Mapping[str, Any], path: str) -> Any:
    found: Any = settings
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def _every_model(root: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for info in root.model_fields.values():
        for model in _models(info.annotation):
            yield model
            yield from _every_model(model)


@cache
def _descriptions(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings that stand below the fields of a model and of its bases, on one line each."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, BaseModel) or cls is BaseModel:
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(definition, ast.ClassDef)
        for setting, after in pairwise(definition.body):
            match setting, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return found


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models(part)]


def _is_collection(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) in (tuple, list, dict)


def _default_kind(default: Any) -> str:
    return _json(getattr(default, KIND, REQUIRED))


def _json(value: Any) -> str:
    if value is REQUIRED:
        return NO_DEFAULT
    return json.dumps(value.model_dump(mode="json") if isinstance(value, BaseModel) else value, default=str)


def _type(annotation: Any) -> str:
    text = (
        annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else str(annotation)
    )
    for noise in ("typing.", "calm_bench.config.", "calm_bench.head_config.", "pipelines.study.config."):
        text = text.replace(noise, "")
    return text.partition("Annotated[")[2].partition(",")[0] or text
