"""The questions of an lm-eval task, looked at before any model is asked.

lm-eval takes a wrong label for a wrong answer, a misspelt field for a prompt of that one word, and fails at an empty
choice with ``IndexError``. Here each of them is an error that names the task's file, the question's number and the
field.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from lm_eval.api.task import ConfigurableTask

from calm_bench.registry import did_you_mean
from evals.answer_labels import as_template, check_answer, check_contest, check_label, check_text
from evals.answer_length import AnswerLimit
from evals.generation_requests import read_request
from evals.protocol import EvaluationError
from evals.task_files import TaskFileError

FIELDS = ("doc_to_text", "doc_to_target", "doc_to_choice")
SEPARATORS = (";", "\t", "|")
"""What stands between fields of files that are called CSV, where it is no comma."""
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

    @property
    def is_ones_own(self) -> bool:
        """Whether the file is not one of lm-eval's, read with data from elsewhere."""
        import lm_eval

        return Path(str(lm_eval.__file__)).parent not in Path(self._where).absolute().parents

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


QUESTIONS = ("generate_until", "loglikelihood", "loglikelihood_rolling", "multiple_choice")
"""Types of tasks of which text, choices and answer are all that is asked."""
WHERE = "calm_bench_where"
"""Key of a task's settings under which :class:`FileTask` is told the file."""


def check_questions(task: Any, where: str, limit: int | None = None, longest: AnswerLimit | None = None) -> None:
    """Look at the first ``limit`` questions of a task; tasks that are programs of their own are left alone.

    Args:
        longest: continuations that can be scored, where that is known.

    Equal or single choices are refused in a task file of one's own, which can be put right. Those of lm-eval's tasks
    are what others were scored on.

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
        _check_question(task, document, f"{where}: question {number}", longest)


def question_of(task: Any, sample: Mapping[str, Any]) -> str:
    """What tells the question of a sample of lm-eval from others: equal ones are copies.

    A number or a source that each copy has for itself makes it no other question. Where a program or a function of
    one's own judges, all of a document counts.
    """
    known: str = sample["doc_hash"]
    if not isinstance(task, ConfigurableTask) or task.prompt is not None:
        return known
    if callable(task.get_config("process_results")) or task.OUTPUT_TYPE not in QUESTIONS:
        return known
    document = sample["doc"]
    text = task.doc_to_text(document)
    if task.OUTPUT_TYPE == "multiple_choice" and not isinstance(text, int):
        return repr((text, task.doc_to_choice(document)))
    return repr((text, sample["target"], task.doc_to_choice(document) if isinstance(text, int) else None))


def _check_fields(task: ConfigurableTask, where: str) -> None:
    if len(task.features) == 1 and any(sign in task.features[0] for sign in SEPARATORS):
        (sign,) = [sign for sign in SEPARATORS if sign in task.features[0]][:1]
        raise TaskFileError(
            f"{where}: the data separate their fields by {sign!r}, and are read by commas: dataset_kwargs: "
            f"{{sep: {json.dumps(sign)}}} beside data_files says so"
        )
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


def _check_question(
    task: ConfigurableTask, document: Mapping[str, Any], where: str, longest: AnswerLimit | None = None
) -> None:
    for setting in FIELDS:
        value = task.get_config(setting)
        names = [] if not isinstance(value, str) else [value] if value in task.features else _variables(value)
        for name in names:
            # A number that is none is how readers of tables have it that nothing stands there.
            if nothing := _nothing(document.get(name, "")):
                way_out = _words_for_nothing(task)
                raise TaskFileError(
                    f"{where}: the field {name!r} is empty ({nothing}), and {setting} needs it{way_out}"
                )
    text, target = _made(task, "doc_to_text", document, where), _made(task, "doc_to_target", document, where)
    if text is None:
        raise TaskFileError(f"{where}: doc_to_text gives no text")
    if isinstance(text, list | dict | float):
        raise TaskFileError(f"{where}: doc_to_text gives {text!r}, which is no text{as_template(task, 'doc_to_text')}")
    kind = task.OUTPUT_TYPE
    if kind in ("loglikelihood", "loglikelihood_rolling") and not isinstance(target, str):
        raise TaskFileError(
            f"{where}: doc_to_target gives {target!r}, which is no text to score{as_template(task, 'doc_to_target')}"
        )
    if kind == "loglikelihood" and not target:
        raise TaskFileError(f"{where}: doc_to_target is empty, so there is no continuation to score")
    if kind == "loglikelihood":
        _check_length(task, text, [target], where, longest)
    has_choices = kind == "generate_until" and task.get_config("doc_to_choice") is not None
    if kind != "multiple_choice" and not has_choices:
        return
    choices = _choices(task, document, where)
    if kind == "multiple_choice":
        # Where the text is the choice, the target is what is asked after each.
        _check_length(task, text, [str(target)] if isinstance(text, int) else choices, where, longest)
    check_text(task, document, text, where)
    if callable(task.get_config("process_results")):
        return  # which says itself what is right
    if kind == "generate_until":
        # lm-eval takes the choice of that number for the right answer, and fails at anything else.
        check_label(task, document, target, choices, where, by_text=False)
    else:
        check_answer(task, document, text, target, choices, where)
        if isinstance(task, FileTask) and task.is_ones_own and not isinstance(text, int):
            check_contest(task, target, choices, where)


def _nothing(value: Any) -> str:
    """``null`` or ``NaN``; nothing of what is something."""
    return "null" if value is None else "NaN" if isinstance(value, float) and math.isnan(value) else ""


def _words_for_nothing(task: ConfigurableTask) -> str:
    """What to do where the field may hold a word that a reader takes for nothing."""
    if task.DATASET_PATH != "csv":
        return ""
    return "; where it says NA, None or null: dataset_kwargs: {keep_default_na: false} beside data_files keeps words"


def _check_length(
    task: ConfigurableTask, context: Any, continuations: Sequence[str], where: str, longest: AnswerLimit | None
) -> None:
    if longest is None:
        return
    delimiter = str(task.get_config("target_delimiter") or "")
    for continuation in continuations:
        wrong = longest.fault(context if isinstance(context, str) else "", f"{delimiter}{continuation}")
        if wrong is not None:
            raise TaskFileError(f"{where}: {wrong}")


def _choices(task: ConfigurableTask, document: Mapping[str, Any], where: str) -> Sequence[str]:
    choices = _made(task, "doc_to_choice", document, where)
    if not isinstance(choices, Sequence) or isinstance(choices, str) or not choices:
        raise TaskFileError(f"{where}: doc_to_choice must give a list of choices, found {choices!r}")
    for number, choice in enumerate(choices):
        if not isinstance(choice, str) or not choice:
            what = "is empty" if choice in ("", None) else f"is no text ({choice!r})"
            raise TaskFileError(f"{where}: choice {number} of {len(choices)} {what}")
    return choices


def _made(task: ConfigurableTask, setting: str, document: Mapping[str, Any], where: str) -> Any:
    try:
        return getattr(task, setting)(document)
    except Exception as error:  # templates and functions of one's own raise anything
        raise TaskFileError(
            f"{where}: {setting} cannot be made of it ({type(error).__name__}: {error}); its fields are "
            f"{', '.join(map(str, document))}"
        ) from error
