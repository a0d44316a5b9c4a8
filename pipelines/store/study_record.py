"""The file ``study.yaml`` of a study: its complete configuration, defaults included; passwords are masked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calm_bench.atomic import write_bytes
from calm_bench.overrides import YAML_ERRORS, yaml_problem
from pipelines.common.record_file import RecordError, damaged, validated
from pipelines.common.redact import redact
from pipelines.common.shell_commands import lost_addresses, shell_command

if TYPE_CHECKING:
    from pipelines.study.config import Study

STUDY_FILE = "study.yaml"
_REMEDY = "run the study again, which writes it anew, or remove its folder"


@dataclass(frozen=True)
class StudyRecord:
    """A study's configuration as its folder keeps it."""

    path: Path
    text: str
    settings: Mapping[str, Any]
    """What the text says, before it is checked: a version of today may refuse what an older one accepted."""

    @classmethod
    def load(cls, folder: Path) -> StudyRecord:
        """The configuration of the study in ``folder``.

        Raises:
            FileNotFoundError: there is none.
            RecordError: the file is damaged.
        """
        import yaml

        path = folder / STUDY_FILE
        try:
            text = path.read_text(encoding="utf-8")
            settings = yaml.safe_load(text)
        except NotADirectoryError as error:
            raise FileNotFoundError(str(error)) from None
        except YAML_ERRORS as error:
            raise damaged(path, f"not YAML: {' '.join(yaml_problem(error).split())}", _REMEDY) from None
        if not isinstance(settings, dict):
            raise damaged(path, "not a mapping", _REMEDY)
        return cls(path, text, settings)

    def study(self) -> Study:
        """The study, checked.

        Raises:
            RecordError: it is none of this version.
        """
        from pipelines.study.config import Study

        return validated(Study, self.settings, self.path, _REMEDY)

    @property
    def objectives(self) -> list[str]:
        """The metrics that the search optimises, as far as they can be told."""
        try:
            return [str(objective["metric"]) for objective in self.settings["search"]["objectives"]]
        except (KeyError, TypeError):
            return []

    def command(self, store: str) -> str:
        """The command by which the study goes on in ``store``, wherever its settings came from."""
        lost = lost_addresses(self.settings)
        return shell_command(["calm-bench", "run", str(self.path), *lost, "--store", store])

    @property
    def optuna_storage(self) -> str | None:
        """The address of the database that keeps the trials, its password masked; None for a journal."""
        execution = self.settings.get("execution")
        found = execution.get("optuna_storage") if isinstance(execution, dict) else None
        return found if isinstance(found, str) else None


def load_study(folder: Path) -> StudyRecord | None:
    """As :meth:`StudyRecord.load`; None for a study without configuration, or with a damaged one.

    For readers to whom it is of use but not needed.
    """
    try:
        return StudyRecord.load(folder)
    except (OSError, RecordError):
        return None


def save_study(folder: Path, study: Study) -> None:
    """Keep the configuration of the study in ``folder``."""
    write_bytes(folder / STUDY_FILE, resolved_yaml(study).encode())


def resolved_yaml(study: Study) -> str:
    """The complete configuration of a study, defaults included, as YAML; passwords in addresses are masked."""
    import yaml

    resolved = _redacted_within(study.model_dump(mode="json"))
    return yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)


def _redacted_within(value: Any) -> Any:
    """``value`` with every string in it masked: any of them may hold an address."""
    match value:
        case str():
            return redact(value)
        case dict():
            return {key: _redacted_within(item) for key, item in value.items()}
        case list():
            return [_redacted_within(item) for item in value]
    return value
