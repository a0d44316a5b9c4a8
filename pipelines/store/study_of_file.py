"""The studies of a store that a YAML file describes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from calm_bench.config import Corpus
from calm_bench.errors import UsageError
from calm_bench.overrides import load_yaml
from pipelines.common.record_file import RecordError
from pipelines.store.refs import StudyRef
from pipelines.store.study_record import load_study
from pipelines.study.config import Study
from pipelines.study.identity import study_identity

SUFFIXES = (".yaml", ".yml")


def studies_of_file(path: Path, folders: Iterable[Path]) -> list[Path]:
    """Those of ``folders`` whose study has the settings of the YAML file at ``path``, in their order; where none has
    them, as after a run with overrides, all that are called as the file says.

    Text is not read: studies of a corpus whose files have changed since are the file's too.

    Raises:
        ConfigurationError: there is no such file, or it is no YAML.
    """
    from pipelines.study.catalogue import resolve_study

    # The name of the study in a file is what it says, else the file's own.
    name = str(load_yaml(path).get("name", path.stem))
    alike = [folder for folder in folders if StudyRef.of(folder).name == name]
    try:
        wanted = _settings_identity(resolve_study(str(path)))
    except UsageError:
        # An older version took it, or it needs overrides.
        return alike
    return [folder for folder in alike if _identity_in(folder) == wanted] or alike


def _identity_in(folder: Path) -> str | None:
    record = load_study(folder)
    try:
        return None if record is None else _settings_identity(record.study())
    except RecordError:
        return None


def _settings_identity(study: Study) -> str:
    """As the identity of a study, with its corpus by name and not by content."""

    def named(corpus: Corpus) -> dict[str, Any]:
        return corpus.model_dump(mode="json") | {"source": str(Path(corpus.source).expanduser().absolute())}

    return study_identity(study, named)
