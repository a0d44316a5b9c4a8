"""The questions of an lm-eval task, looked at before any model is asked.

lm-eval takes a wrong label for a wrong answer, a misspelt field for a prompt of that one word, and fails at an empty
choice with ``IndexError``. Here each of them is an error that names the task's file, the question's number and the
field.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from lm_eval.api.task import ConfigurableTask

from calm_bench.registry import did_you_mean
from evals.generation_requests import read_request
from evals.protocol import EvaluationError
from evals.task_files import TaskFileError

FIELDS = ("doc_to_text", "doc_to_target", "doc_to_choice")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SURELY_A_FIELD = 0.6
"""Likeness from which a single word that is no field is taken for a misspelt one."""


class FileTask(ConfigurableTask):  # type: ignore[misc]
    """A task of a file of one's own; its fields and its first question are looked at before lm-eval does."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        settings = dict(config)
        settings.pop("class", None)
        self._where = str(settings.pop(WHERE, settings.get("task")))
        super().__init__(config=settings)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Load the data set and check it.

        Raises:
            TaskFileError: a split or field that is not there, or a first question that cannot be asked.
        """
        super().download(dataset_kwargs, **kwargs)
        for name in ("test_split", "validation_split", "training_split", "fewshot_split"):
            split = self.get_config(name)
            if split is not None and split not in self.dataset:
                raise TaskFileError(
                    f"{self._where}: {name}: the data have no split {split!r}{did_you_mean(split, list(self.dataset))}"
                )
        if not (self.has_test_docs() or self.has_validation_docs()):
            raise TaskFileError(
                f"{self._where}: test_split is not set, so nothing says what is asked; there is "
                f"{', '.join(self.dataset)}"
            )
        documents = self.eval_docs
        if not len(documents):
            raise TaskFileError(f"{self._where}: the split that is asked has no questions")
        self.features, self.prompt, self.multiple_input = list(documents.features), None, 0
        if self.get_config("use_prompt") is None:
            _check_fields(self, self._where)
            check_questions(self, self._where, 1)


WHERE = "calm_bench_where"
"""Key of a task's settings under which :class:`FileTask` is told the file."""


def check_questions(task: Any, where: str, limit: int | None = None) -> None:
    """Look at the first ``limit`` questions of a task; tasks that are programs of their own are left alone.

    Raises:
        TaskFileError: one that cannot be asked or has no right answer; names it by its number, from 1.
    """
    if not isinstance(task, ConfigurableTask) or task.prompt is not None:
        return
    if task.OUTPUT_TYPE == "generate_until":
        try:
            read_request("", task.get_config("generation_kwargs") or {})
        except EvaluationError as error:
            raise TaskFileError(f"{where}: {error}") from None
    for number, document in enumerate(islice(iter(task.eval_docs), limit), start=1):
        _check_question(task, document, f"{where}: question {number}")


def _check_fields(task: ConfigurableTask, where: str) -> None:
    for setting in FIELDS:
        value = task.get_config(setting)
        if not isinstance(value, str) or value in task.features:
            continue
        if "{" in value:
            for name in _variables(value):
                if name not in task.features:
                    raise TaskFileError(
                        f"{where}: {setting} names the field {name!r}, which the questions do not have"
                        f"{did_you_mean(name, task.features)}"
                    )
            continue
        is_near = bool(difflib.get_close_matches(value, task.features, n=1, cutoff=_SURELY_A_FIELD))
        if _WORD.fullmatch(value) and (setting != "doc_to_target" or is_near):
            raise TaskFileError(
                f"{where}: {setting}: the questions have no field {value!r}{did_you_mean(value, task.features)}"
            )


def _variables(template: str) -> list[str]:
    """Fields that a Jinja template reads; none of one that Jinja cannot read, which lm-eval will say."""
    from jinja2 import Environment, TemplateError, meta

    try:
        return sorted(meta.find_undeclared_variables(Environment().parse(template)))
    except TemplateError:
        return []


def _check_question(task: ConfigurableTask, document: Mapping[str, Any], where: str) -> None:
    for setting in FIELDS:
        value = task.get_config(setting)
        names = [] if not isinstance(value, str) else [value] if value in task.features else _variables(value)
        for name in names:
            if name in document and document[name] is None:
                raise TaskFileError(f"{where}: the field {name!r} is empty (null), and {setting} needs it")
    text, target = _made(task, "doc_to_text", document, where), _made(task, "doc_to_target", document, where)
    if text is None:
        raise TaskFileError(f"{where}: doc_to_text gives no text")
    if task.OUTPUT_TYPE == "multiple_choice":
        _check_choices(task, document, text, target, where)
    elif task.OUTPUT_TYPE == "loglikelihood" and not str(target):
        raise TaskFileError(f"{where}: doc_to_target is empty, so there is no continuation to score")


def _check_choices(task: ConfigurableTask, document: Mapping[str, Any], text: Any, target: Any, where: str) -> None:
    choices = _made(task, "doc_to_choice", document, where)
    if not isinstance(choices, Sequence) or isinstance(choices, str) or not choices:
        raise TaskFileError(f"{where}: doc_to_choice must give a list of choices, found {choices!r}")
    for number, choice in enumerate(choices):
        if not isinstance(choice, str) or not choice:
            what = "is empty" if choice in ("", None) else f"is no text ({choice!r})"
            raise TaskFileError(f"{where}: choice {number} of {len(choices)} {what}")
    # Where the choices are questions, the text is the number of the right one.
    gold = text if isinstance(text, int) else target
    if callable(task.get_config("process_results")):
        return  # which says itself what is right
    # By the first question lm-eval knows what all are; while that one is looked at, it does not know yet.
    if isinstance(gold, list) != bool(getattr(task, "multiple_target", isinstance(gold, list))):
        raise TaskFileError(
            f"{where}: the answer {gold!r} is {'a list' if isinstance(gold, list) else 'no list'}, unlike that of the "
            "first question: doc_to_target must give lists of numbers for all questions, or for none"
        )
    if gold == []:
        raise TaskFileError(f"{where}: the answer [] names none of its {len(choices)} choices")
    for label in gold if isinstance(gold, list) else [gold]:
        if isinstance(label, float) and label.is_integer() and 0 <= label < len(choices):
            raise TaskFileError(f"{where}: the answer {label!r} is no whole number{_as_whole(task)}")
        by_number = isinstance(label, int) and 0 <= label < len(choices)
        by_text = isinstance(label, str) and label in choices and not isinstance(gold, list)
        if not (by_number or by_text):
            raise TaskFileError(
                f"{where}: the answer {label!r} is none of its {len(choices)} choices: doc_to_target must give a "
                f"number from 0 to {len(choices) - 1}" + ("" if isinstance(gold, list) else ", or the text of a choice")
            )


def _as_whole(task: ConfigurableTask) -> str:
    """What makes whole numbers of the field of a table that holds them with a decimal point."""
    field = task.get_config("doc_to_target")
    if not isinstance(field, str) or field not in task.features:
        return ": doc_to_target must give one"
    return f": write doc_to_target: '{{{{{field} | int}}}}'"


def _made(task: ConfigurableTask, setting: str, document: Mapping[str, Any], where: str) -> Any:
    try:
        return getattr(task, setting)(document)
    except Exception as error:  # templates and functions of one's own raise anything
        raise TaskFileError(
            f"{where}: {setting} cannot be made of it ({type(error).__name__}: {error}); its fields are "
            f"{', '.join(map(str, document))}"
        ) from error
