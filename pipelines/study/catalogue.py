"""From a study's name or file, and the assignments of the command line, to a checked :class:`Study`."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calm_bench.config import Experiment
from calm_bench.overrides import ConfigurationError, assign, load_yaml, merge, parse_assignment, validate
from calm_bench.problems import check_path
from calm_bench.registry import did_you_mean
from calm_bench.trusted_code import targets_in, trust_code
from pipelines.study.config import ANCHORS, NAME, Study
from pipelines.study.graph import check_extra_stages
from pipelines.study.precedence import refuse_lost_settings
from pipelines.study.search_metrics import check_search_metrics
from pipelines.study.search_settings import Parameter, leaves
from pipelines.study.unused_settings import searched_without_rows, settings_without_rows, with_all_choices

SHIPPED = Path(__file__).parent.parent / "studies"
PRESET = "preset"


@dataclass(frozen=True)
class ShippedStudy:
    """A study that comes with the package."""

    name: str
    description: str
    path: Path


def shipped_studies() -> list[ShippedStudy]:
    """All studies that come with the package, by name."""
    found = []
    for path in sorted(SHIPPED.glob("*.yaml")):
        description = str(load_yaml(path).get("description", "")).strip()
        found.append(ShippedStudy(path.stem, description, path))
    return found


def resolve_study(name_or_path: str, overrides: Sequence[str] = ()) -> Study:
    """The study called ``name_or_path``, or in the YAML file of that path, with ``key=value`` overrides.

    Later layers win: defaults, the preset that the file or an override names, the file, the overrides; in each trial
    then the settings of its point of the search, and ``search.fixed``. Heads and families from elsewhere that the study
    names are trusted in this process from then on.

    Raises:
        ConfigurationError: no such study, unknown keys (with the nearest valid one), impossible combinations,
            an override that the search would override in turn.
    """
    path = _find(name_or_path)
    file = load_yaml(path)
    settings: dict[str, Any] = {}
    for text in overrides:
        key, value = parse_assignment(text)
        if key in settings:
            raise ConfigurationError(f"{key} is set twice on the command line")
        if key != PRESET:
            check_path(Study, key)
        settings[key] = value
    preset = settings.pop(PRESET, file.get(PRESET))
    written = _written(file)
    origin = str(path) if not settings else ""
    data = merge(_below(path, preset, origin), written)
    if "name" not in written and "name" not in settings:
        _check_stem(path)
    data = assign(data, settings)
    refuse_infinite(data, origin=f"{origin}: " if origin else "")
    study = validate(Study, data, origin)
    for parameter in study.search.parameters:
        _check_parameter(parameter)
    check_extra_stages(study)
    check_search_metrics(study)
    for key in study.search.fixed_settings:
        check_path(Experiment, key)
    refuse_lost_settings(study, settings)
    trust_code(*targets_in(study.model_dump(mode="json")))
    return _with_objective_text(study)


def unused_settings(name_or_path: str, overrides: Sequence[str], study: Study) -> list[str]:
    """In words, what changes no row of ``study``, which :func:`resolve_study` made of the same: of the overrides, of
    the search, and of the file, as far as no choice that stands in it, included or not, would use it."""
    given = dict(map(parse_assignment, overrides))
    file = _of_file(_find(name_or_path))
    found = [*settings_without_rows(study, given), *searched_without_rows(study)]
    if file is not None:
        alone, written = file
        kept = {key: value for key, value in written.items() if key not in given}
        found += settings_without_rows(with_all_choices(alone), kept)
    return list(dict.fromkeys(found))


def _of_file(path: Path) -> tuple[Study, dict[str, Any]] | None:
    """The study of a file alone, and what it sets by dotted path where its preset and the defaults say something else;
    None of a file that is no study without overrides."""
    file = load_yaml(path)
    written = _written(file)
    below = _below(path, file.get(PRESET), "")
    with suppress(ConfigurationError):
        study = validate(Study, merge(below, written))
        usual = dict(_leaves(merge(Study(name=study.name).model_dump(mode="json"), below)))
        return study, {key: value for key, value in _leaves(written) if key not in usual or usual[key] != value}
    return None


def _leaves(sections: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [leaf for section, value in sections.items() for leaf in leaves(section, value)]


def _written(file: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in file.items() if key != PRESET and not key.startswith(ANCHORS)}


def _below(path: Path, preset: Any, origin: str) -> dict[str, Any]:
    """What stands below a study file: the defaults and its preset."""
    return merge({"name": path.stem, **_defaults()}, _preset(preset, origin))


def refuse_infinite(value: Any, path: str = "", origin: str = "") -> None:
    """
    Args:
        origin: what a message begins with.

    Raises:
        ConfigurationError: a number in a study's settings is infinite or none (``.inf``, ``1e400``, ``.nan``): no
            setting can be, and the study's record could not hold it.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigurationError(f"{origin}{path}: {value} is no number that a setting can be")
    if isinstance(value, Mapping):
        for key, item in value.items():
            refuse_infinite(item, f"{path}.{key}".lstrip("."), origin)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            refuse_infinite(item, f"{path}[{index}]", origin)


def _with_objective_text(study: Study) -> Study:
    """Validation text where scores choose among trials and the study does not say which text."""
    search = study.search
    if search.split is not None or not (search.chooses_by_score or study.final is not None):
        return study
    return study.model_copy(update={"search": search.model_copy(update={"split": "validation"})})


def _find(name_or_path: str) -> Path:
    names = [path.stem for path in SHIPPED.glob("*.yaml")]
    given = Path(name_or_path)
    if name_or_path in names:
        return SHIPPED / f"{name_or_path}.yaml"
    with suppress(OSError):  # such as a name that is longer than files may have
        if given.is_file():
            return given
        if given.is_dir():
            raise ConfigurationError(f"{name_or_path} is a folder: name a study file (YAML) in it")
        if given.exists():
            raise ConfigurationError(f"{name_or_path} is no file that can be read again: write the study into a file")
        if given.is_symlink():
            raise ConfigurationError(f"{name_or_path} is a link that leads nowhere: there is no {given.readlink()}")
    if given.suffix in (".yaml", ".yml") or "/" in name_or_path:
        raise ConfigurationError(f"there is no study file {name_or_path}")
    raise ConfigurationError(
        f"there is no study {name_or_path!r}{did_you_mean(name_or_path, names)} (a path of a YAML file works too)"
    )


def _check_stem(path: Path) -> None:
    """Check that a file without ``name:`` has one that studies may have.

    Raises:
        ConfigurationError: it has not; says how to give it one.
    """
    if re.fullmatch(NAME, path.stem) is None:
        plain = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode()
        like = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")[:64]
        if not isinstance(parse_assignment(f"name={like}")[1], str):
            # Nothing, or what YAML reads as a number or a truth value.
            like = f"my-study-{like}".strip("-")
        raise ConfigurationError(
            f"{path}: a study is called after its file, and {path.stem!r} is more than letters, digits, '.', '_' and "
            f"'-', or too long: give it a name in the file (name: {like}) or beside it (name={like})"
        )


def _defaults() -> dict[str, Any]:
    """Experiment defaults as data, so that a file may change one key of a nested default and keep the rest."""
    return Experiment().model_dump(mode="json")


def _preset(name: Any, origin: str) -> Mapping[str, Any]:
    if name is None:
        return {}
    from calm_bench.presets import PRESETS

    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigurationError(
            f"{origin}{': ' if origin else ''}{PRESET}: there is no preset {name!r}"
            f"{did_you_mean(str(name), list(PRESETS))}"
        )
    return PRESETS[name]


def _check_parameter(parameter: Parameter) -> None:
    """Refuse what a trial could never set, now and not when its turn comes."""
    bundles = parameter.choices.values() if parameter.choices is not None else [{parameter.name: None}]
    for settings in bundles:
        for path in settings:
            try:
                check_path(Experiment, path)
            except ConfigurationError as error:
                raise ConfigurationError(f"search parameter {parameter.name!r}: {error}") from error
