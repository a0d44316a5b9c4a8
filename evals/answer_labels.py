"""Right answers of an lm-eval task with choices, where lm-eval takes them for others than were meant.

It takes a truth value for a number, digits that a template gives for a number too, and the first of equal choices for
the one that the model chose. Here these are errors with the question's number, unless what it takes is what is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.task import ConfigurableTask

from evals.task_files import TaskFileError

ALWAYS_RIGHT = frozenset({"exact_match", "likelihood"})
"""Metrics that mean something where there is nothing to choose from; of others every answer to it would be right."""
OF_SEVERAL = frozenset({"acc", "acc_norm", "acc_bytes", "exact_match"})
"""What lm-eval computes where a question has several right answers; at others it fails after all have been asked."""
WORDS = {False: ("false", "no"), True: ("true", "yes")}
"""Choices that say what a truth value says."""
_BARE_FIELD = re.compile(r"\{\{-?\s*([A-Za-z_][A-Za-z0-9_]*)\s*-?\}\}")


def check_text(task: ConfigurableTask, document: Mapping[str, Any], text: Any, where: str) -> None:
    """Refuse a question of digits alone, which lm-eval takes for the number of the right one of several questions.

    Raises:
        TaskFileError: it is one.
    """
    field = _only_field(task, "doc_to_text")
    if isinstance(text, int) and field is not None and isinstance(document.get(field), str):
        raise TaskFileError(
            f"{where}: it consists of digits ({document[field]}), which lm-eval takes for the number of a choice where "
            f"a template gives them: write doc_to_text: {field}, or put words around it"
        )


def check_answer(
    task: ConfigurableTask, document: Mapping[str, Any], text: Any, target: Any, choices: Sequence[str], where: str
) -> None:
    """Refuse right answers of a multiple choice that are none of its choices, or that lm-eval takes for others.

    Raises:
        TaskFileError: names the question, the answer and what it may be.
    """
    # Where the choices are questions, the text is the number of the right one.
    gold = text if isinstance(text, int) else target
    # By the first question lm-eval knows what all are; while that one is looked at, it does not know yet.
    if isinstance(gold, list) != bool(getattr(task, "multiple_target", isinstance(gold, list))):
        raise TaskFileError(
            f"{where}: the answer {gold!r} is {'a list' if isinstance(gold, list) else 'no list'}, unlike that of the "
            "first question: doc_to_target must give lists of numbers for all questions, or for none"
        )
    if not isinstance(gold, list):
        check_label(task, document, gold, choices, where)
        return
    if not gold:
        raise TaskFileError(f"{where}: the answer [] names none of its {len(choices)} choices")
    if unfit := [metric for metric in task.aggregation() if metric not in OF_SEVERAL]:
        raise TaskFileError(
            f"{where}: {unfit[0]} cannot be computed where answers are lists, as {gold!r}: leave it out of metric_list "
            f"(there are {', '.join(sorted(OF_SEVERAL))}), or name one right choice for each question, without brackets"
        )
    for label in gold:
        check_label(task, document, label, choices, where, by_text=False, is_list=True)


def check_label(
    task: ConfigurableTask,
    document: Mapping[str, Any],
    label: Any,
    choices: Sequence[str],
    where: str,
    by_text: bool = True,
    is_list: bool = False,
) -> None:
    """Refuse a right answer that lm-eval would take for another one, or for none.

    Args:
        by_text: whether the answer may be the text of a choice.
        is_list: whether it is one of several.

    Raises:
        TaskFileError: names the question, the answer and what it may be.
    """
    count = len(choices)
    if isinstance(label, bool):
        _check_truth_value(task, label, choices, where, is_list)
        return
    field = _only_field(task, "doc_to_target")
    if field is not None and isinstance(label, int) and isinstance(document.get(field), str):
        # A template gives text, of which lm-eval takes digits for a number.
        written = document[field].strip()
        if by_text and written in choices and not (label < count and choices[label] == written):
            raise TaskFileError(
                f"{where}: the answer {written!r} is the text of choice {choices.index(written)}, and lm-eval takes it "
                f"for the number of a choice: write doc_to_target: {field} for the text, or "
                f'doc_to_target: "{{{{{field} | int}}}}" for the number'
            )
    named = by_text and label in choices
    is_number = (isinstance(label, float) and label.is_integer()) or (isinstance(label, str) and label.isdecimal())
    if is_number and not named and 0 <= int(label) < count:
        raise TaskFileError(f"{where}: the answer {label!r} is no whole number{_as_whole(task, is_list)}")
    if not named and not (isinstance(label, int) and 0 <= label < count):
        raise TaskFileError(
            f"{where}: the answer {label!r} is none of its {count} choices: doc_to_target must give a "
            f"number from 0 to {count - 1}" + (", or the text of a choice" if by_text else "")
        )


def _check_truth_value(task: ConfigurableTask, label: bool, choices: Sequence[str], where: str, is_list: bool) -> None:
    """lm-eval takes false and true for the choices 0 and 1, which is right where these say no and yes."""
    said = [choice.strip().lower() for choice in choices]
    if len(said) != 2 or said[0] not in WORDS[False] or said[1] not in WORDS[True]:
        shown = f" ({choices[int(label)]!r})" if int(label) < len(choices) else ""
        raise TaskFileError(
            f"{where}: the answer {str(label).lower()} is no number, and lm-eval would take it for choice "
            f"{int(label)}{shown}{_as_whole(task, is_list)} if that is meant"
        )


def check_contest(task: ConfigurableTask, target: Any, choices: Sequence[str], where: str) -> None:
    """Refuse a question that no answer to can be wrong, or of which one text is both right and wrong.

    Raises:
        TaskFileError: it is one.
    """
    counted = [metric for metric in task.aggregation() if metric not in ALWAYS_RIGHT]
    if len(choices) == 1 and counted:
        raise TaskFileError(
            f"{where}: it has one choice, so {counted[0]} counts every answer as right: give it two or more, or score "
            "that text with output_type: loglikelihood"
        )
    labels = target if isinstance(target, list) else [target]
    right = {choices.index(label) if isinstance(label, str) else int(label) for label in labels}
    for number, choice in enumerate(choices):
        twin = next((one for one in right if choices[one] == choice), None)
        if number not in right and twin is not None:
            raise TaskFileError(
                f"{where}: the choices {min(number, twin)} and {max(number, twin)} are the same text ({choice!r}), and "
                "one of them counts as right, the other as wrong: change one"
            )


def as_template(task: ConfigurableTask, setting: str) -> str:
    """What makes text of a field that holds something else; nothing where the setting names no field."""
    field = task.get_config(setting)
    return f": write {setting}: '{{{{{field}}}}}'" if isinstance(field, str) and field in task.features else ""


def _only_field(task: ConfigurableTask, setting: str) -> str | None:
    """The field that the template ``setting`` consists of; None where it is something else."""
    template = task.get_config(setting)
    if not isinstance(template, str) or template in task.features:
        return None
    found = _BARE_FIELD.fullmatch(template.strip())
    return None if found is None else found[1]


def _as_whole(task: ConfigurableTask, is_list: bool) -> str:
    """What makes whole numbers of a field that holds them as something else."""
    field = task.get_config("doc_to_target")
    if not isinstance(field, str) or field not in task.features:
        return ": doc_to_target must give one"
    # Of a list the filter int makes 0.
    whole = "map('int') | list" if is_list else "int"
    return f': write doc_to_target: "{{{{{field} | {whole}}}}}"'
