"""The page's script is what its sources make, and these keep to what they promise; none of it needs Node."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from importlib.resources import files
from pathlib import Path

import pytest

from pipelines.report import data
from pipelines.report.page import SCRIPT

SCRIPTS = Path(__file__).parents[3] / "pipelines" / "report" / "scripts"
SOURCES = sorted((SCRIPTS / "src").iterdir())
BUNDLE = files("pipelines.report").joinpath("assets", SCRIPT).read_text(encoding="utf-8")


def test_the_bundle_is_fresh() -> None:
    digest = hashlib.sha256()
    for path in sorted([*SOURCES, SCRIPTS / "bundle.js", SCRIPTS / "package-lock.json"], key=lambda path: name(path)):
        digest.update(f"{name(path)}\n".encode() + path.read_bytes())
    told = "run npm ci && npm run build in pipelines/report/scripts"
    assert re.match(r"/\* Made from \S+, sha256-(\w+)", BUNDLE)[1] == digest.hexdigest(), told  # type: ignore[index]


def name(path: Path) -> str:
    return path.relative_to(SCRIPTS).as_posix()


def test_the_bundle_holds_its_licences_and_cannot_end_its_element() -> None:
    head = BUNDLE[: BUNDLE.index("*/")]
    assert "@observablehq/plot" in head
    assert head.count("THE SOFTWARE IS PROVIDED") >= 2
    assert not re.search(r"</script|<!--", BUNDLE, re.IGNORECASE)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_source_sets_markup(path: Path) -> None:
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
    assert not re.search(forbidden, path.read_text(encoding="utf-8"))


def test_the_types_of_the_data_are_those_of_python() -> None:
    """Names of fields: what the type checker believes about the data is what Python writes."""
    text = (SCRIPTS / "src" / "data.d.ts").read_text(encoding="utf-8")
    told = {found[1]: re.findall(r"^  (\w+):", found[2], re.MULTILINE) for found in _interfaces(text)}
    classes = [each for each in vars(data).values() if dataclasses.is_dataclass(each) and isinstance(each, type)]
    assert len(classes) > 10
    for each in classes:
        assert sorted(told[each.__name__]) == sorted(field.name for field in dataclasses.fields(each)), each


def _interfaces(text: str) -> list[re.Match[str]]:
    return list(re.finditer(r"^export interface (\w+) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL))
