"""What the documentation tells people to type between backticks, and comments of studies name, is there."""

from __future__ import annotations

import configparser
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest

import calm_bench
from calm_bench.overrides import load_yaml
from calm_bench.presets import PRESETS
from pipelines.study.catalogue import resolve_study
from pipelines.study.search_settings import Search
from tests.test_advice import COMMAND, EXTRA, OPTION, OTHERS, ROOT, SECTIONS, commands, has_setting, messages

PAGES = sorted(
    [
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("deploy/**/*.md"),
        *ROOT.glob("bench/*.md"),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    ]
)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
GIVEN = re.compile(rf"(?<![\w./-])((?:{'|'.join(sorted(SECTIONS))})(?:\.[A-Za-z0-9_]+)+)=")
OF_OTHERS = {*OTHERS, "--gpus-per-node", "--signal", "--num-cpus", "--env-manager", "--target", "--only", "--host"}
"""Options of other programs: of sbatch, ray, mlflow, pip."""
OF_ALL = {"--debug", "--version"}
ELSE = re.compile(r"(?:mlflow|pip|hf|ray|sbatch|srun|lm-eval|pytest|docker|down) ")


@cache
def said() -> tuple[tuple[str, str], ...]:
    return tuple(messages())


def spans() -> Iterator[tuple[str, str]]:
    """Page and text of what stands between backticks outside of blocks."""
    for page in PAGES:
        for text in SPAN.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
            yield str(page.relative_to(ROOT)), text


def comments() -> Iterator[tuple[str, str]]:
    """Comments and descriptions of the studies that ship and of the files in ``deploy/``."""
    for file in sorted([*ROOT.glob("pipelines/studies/*.yaml"), *ROOT.glob("deploy/**/*.yaml")]):
        place, text = str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")
        yield from ((place, found) for found in re.findall(r"(?:^|\s)#\s?(.*)", text))
        if file.parent.name == "studies":
            yield place, str(load_yaml(file).get("description", ""))


def of_program(words: list[str], known: dict[str, Any]) -> tuple[str, list[str]]:
    """The command of ``calm-bench`` that ``words`` begin with, and what is left of them."""
    for length in (2, 1):
        if " ".join(words[:length]) in known:
            return " ".join(words[:length]), words[length:]
    return "", words


def options_of(command: Any) -> set[str]:
    return {"--help"} | {option for one in command.params for option in (*one.opts, *one.secondary_opts)}


def test_every_setting_that_is_given_is_one() -> None:
    named = [(place, path) for place, text in [*spans(), *comments()] for path in GIVEN.findall(text)]
    assert len(named) > 40, "this test finds settings"
    plain = [(place, re.sub(r"\.\d+(?=\.|$)", "", path).removeprefix("search.fixed.")) for place, path in named]
    wrong = [f"{place}: {path}" for place, path in plain if not has_setting(path)]
    assert wrong == []


def test_every_option_belongs_to_the_command_that_stands_before_it() -> None:
    known = commands()
    every = {option for command in known.values() for option in options_of(command)} | OF_ALL
    own = {option for file in ROOT.glob("bench/*.py") for option in re.findall(r'"(--[a-z-]+)"', file.read_text())}
    wrong, found = [], 0
    for place, text in [*spans(), *comments()]:
        if not OPTION.search(text) or ELSE.match(text.strip()):
            continue
        try:
            words = shlex.split(text)
        except ValueError:
            continue
        words = words[words.index("calm-bench") + 1 :] if "calm-bench" in words else words
        name, rest = of_program(words, known)
        allowed = options_of(known[name]) if name else every | own | OF_OTHERS
        if name == "lm-eval":
            continue
        found += bool(name)
        wrong += [f"{place}: {text}" for word in rest if OPTION.match(word) and word.partition("=")[0] not in allowed]
    assert found > 15, "this test finds commands"
    assert wrong == []


def test_every_option_of_a_message_belongs_to_the_command_that_stands_before_it() -> None:
    known, wrong, found = commands(), [], 0
    for place, text in said():
        for match in COMMAND.finditer(text):
            name, _ = of_program([match[1], match[2] or ""], known)
            if not name or name == "lm-eval":
                continue
            # Up to the end of what is typed.
            typed = re.split(r"[;:`()]|\. |, ", text[match.start() :])[0]
            found += 1
            wrong += [f"{place}: {typed}" for option in OPTION.findall(typed) if option not in options_of(known[name])]
    assert found > 10
    assert wrong == []


def test_every_command_that_is_named_is_one() -> None:
    known = commands()
    wrong = []
    for place, text in [*spans(), *comments()]:
        for first, second in re.findall(r"calm-bench ([a-z]+(?:-[a-z]+)*)(?: ([a-z]+))?", text):
            group = getattr(known.get(first), "commands", None)
            if first not in known or (group and second and second not in group):
                wrong.append(f"{place}: {text}")
    assert wrong == []


def test_every_environment_of_tox_and_every_extra_that_is_named_is_one() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    sections = [name.removeprefix("testenv:").strip("{}").split(",") for name in tox.sections()]
    environments = {name for names in sections for name in names}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pages = [(str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")) for page in PAGES]
    named = [(place, name) for place, text in pages for name in re.findall(r"tox -e ([\w-]+)", text)]
    assert len(named) > 5
    assert [one for one in named if one[1] not in environments] == []
    asked = [(place, name) for place, text in pages for name in EXTRA.findall(text)]
    assert len(asked) > 3
    assert [one for one in asked if one[1] not in extras] == []


def test_every_file_that_messages_and_pages_send_to_is_there() -> None:
    named = [(place, path) for place, text in said() for path in re.findall(r"docs/[\w/.-]+\.md", text)]
    named += [
        (place, path) for place, text in spans() for path in re.findall(r"^(?:tests|docs|deploy|bench)/[\w/.-]+$", text)
    ]
    assert len(named) > 20
    assert [f"{place}: {path}" for place, path in named if not (ROOT / path).exists()] == []


def test_every_name_of_python_that_the_pages_show_is_there() -> None:
    """``cb.NAME``, and what is imported from the three packages."""
    wrong, found = [], 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        names = [(calm_bench, name) for name in re.findall(r"\bcb\.([A-Za-z_]\w*)", text)]
        for module, imported in re.findall(r"^from ((?:calm_bench|evals|pipelines)\b[\w.]*) import (.+)$", text, re.M):
            names += [(import_module(module), name) for name in re.findall(r"(\w+)(?: as \w+)?", imported)]
        found += len(names)
        wrong += [f"{page.name}: {module.__name__}.{name}" for module, name in names if not hasattr(module, name)]
    assert found > 20
    assert wrong == []


def test_every_module_that_is_run_is_there_and_has_the_options_behind_it() -> None:
    run = re.compile(r"python -m ((?:bench|pipelines|evals|calm_bench)[\w.]*)([^`\n#|;&]*)")
    found = 0
    for page in PAGES:
        for name, rest in run.findall(page.read_text(encoding="utf-8").replace("\\\n", " ")):
            path = ROOT / Path(*name.split("."))
            file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
            assert file.is_file(), f"{page.name}: {name}"
            taken = file.read_text(encoding="utf-8")
            assert [option for option in OPTION.findall(rest) if f'"{option}"' not in taken] == [], (
                f"{page.name}: {name}"
            )
            found += 1
    assert found > 20


BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
ONE_OF = re.compile(r"^\s*(preset|sampler): \S+ +# ([\w-]+(?:, [\w-]+)+)$", re.MULTILINE)


def studies() -> list[Any]:
    """What pages show as a study's file, or a part of one."""
    blocks = [(page, block) for page in PAGES for block in BLOCK.findall(page.read_text(encoding="utf-8"))]
    read = [pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}") for number, (page, block) in enumerate(blocks)]
    # A task, and a kind of stages of one's own, have tests of their own.
    return [one for one in read if not re.search(r"^(?:task|extra_stages):", str(one.values[0]), re.MULTILINE)]


@pytest.mark.parametrize("block", studies())
def test_every_study_that_the_pages_show_resolves(block: str, tmp_path: Path) -> None:
    names = {"preset": PRESETS, "sampler": get_args(Search.model_fields["sampler"].annotation)}
    for key, listed in ONE_OF.findall(block):
        assert set(listed.split(", ")) <= {*names[key]}
    (tmp_path / "shown.yaml").write_text(block.replace("COMMIT", "ab" * 20))
    assert resolve_study(str(tmp_path / "shown.yaml")).name == "shown"
