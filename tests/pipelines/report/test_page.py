"""The file itself: complete, closed to the network, and deaf to markup in its data."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.app.cli import app
from pipelines.common.sanitize import sanitize_label
from pipelines.report.collect import collect
from pipelines.report.data import Report
from pipelines.report.page import SCRIPT, STYLES, data_of, render, render_data, write_run_report

HOSTILE = '</script><img src=x onerror="alert(1)">\u2028<!--<script>{{DATA}}{{SCRIPT}}'


class Elements(HTMLParser):
    """Scripts with their attributes and texts, and everything that would fetch something."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.addresses: list[str] = []
        self.policy = ""
        self.tags: set[str] = set()
        self._script: dict[str, str | None] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""
        if tag == "script":
            self._script = found

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts.append((self._script, data))
            self._script = None


@pytest.fixture
def hostile(builder: Any) -> str:
    folder = builder.study(
        3, labels=[HOSTILE] * 3, text=HOSTILE, ended=[{"label": HOSTILE, "state": "failed", "error": HOSTILE}]
    )
    return render(collect(builder.store, [folder]))


def test_data_cannot_become_markup(hostile: str) -> None:
    page = Elements(hostile)
    (attributes, data), code = page.scripts
    assert attributes == {"type": "application/json", "id": "data"}
    assert not set("<>&\u2028\u2029") & set(data)
    labels = [row["label"] for row in json.loads(data)["boards"][0]["rows"]]
    assert HOSTILE.replace("\u2028", "�")[:40] in labels[0]
    assert "img" not in page.tags
    assert "iframe" not in page.tags
    assert code[0] == {}


def test_the_policy_names_the_scripts_and_nothing_else(hostile: str) -> None:
    page = Elements(hostile)
    rules = dict(rule.split(" ", 1) for rule in page.policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    digests = {
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for attributes, text in page.scripts
        if not attributes
    }
    assert set(rules["script-src"].split()) == digests
    assert "http" not in page.policy
    assert "connect-src" not in page.policy
    assert "eval" not in page.policy


def test_it_asks_for_nothing(hostile: str) -> None:
    page = Elements(hostile)
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert not re.search(r"@import|url\(", hostile.partition("</style>")[0])


def test_equal_studies_give_equal_pages(builder: Any) -> None:
    folder = builder.study(3)
    assert render(collect(builder.store, [folder])) == render(collect(builder.store, [folder]))


def test_a_page_is_made_again_from_its_data(builder: Any) -> None:
    page = render(collect(builder.store, [builder.study(3)]))
    assert render_data(data_of(page)) == page
    with pytest.raises(ValueError, match="make the report again"):
        render_data(data_of(page) | {"version": 1})


def test_the_gallerys_report_is_of_this_version() -> None:
    data = json.loads((Path(__file__).parents[3] / "docs" / "k-ablation.json").read_text(encoding="utf-8"))
    assert data.keys() == {field.name for field in dataclasses.fields(Report)}
    assert any(sentence.startswith("Does the vector pay?") for sentence in data["boards"][0]["headline"]["sentences"])
    assert data_of(render_data(data)) == data


def test_all_assets_are_used() -> None:
    found = {item.name for item in files("pipelines.report").joinpath("assets").iterdir()}
    assert found == {"page.html", SCRIPT, *STYLES}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext", "plain\n\ttext"),
        ("a\u202eb\u2066c\u200f", "a�b�c�"),
        ("\x1b[31mred\x00", "�[31mred�"),
        ("\u0645\u06cc\u200c\u062e 👩\u200d🔬", "\u0645\u06cc\u200c\u062e 👩\u200d🔬"),
        ("at https://user:secret@host/x", "at https://***@host/x"),
    ],
)
def test_texts_are_legible_and_harmless(text: str, shown: str) -> None:
    assert sanitize_label(text) == shown


def test_long_texts_are_cut() -> None:
    assert sanitize_label("x" * 100, 10) == "x" * 9 + "…"


def test_the_command_writes_beside_the_study(builder: Any) -> None:
    folder = builder.study(2)
    done = CliRunner().invoke(app, ["report", "--store", str(builder.store.root)])
    assert done.exit_code == 0, done.output
    assert done.output.strip() == str(folder / "report.html")
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_the_command_writes_where_it_is_told(builder: Any, tmp_path: Path) -> None:
    builder.study(1)
    builder.study(1, name="other")
    target = tmp_path / "pages" / "both.html"
    done = CliRunner().invoke(app, ["report", "--store", str(builder.store.root), "-o", str(target)])
    assert done.exit_code == 0, done.output
    assert "k-ablation · other" in target.read_text()


def test_the_leaderboard_as_html_is_the_report(builder: Any) -> None:
    folder = builder.study(2)
    command = ["leaderboard", "--format", "html", "--store", str(builder.store.root)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert done.output == render(collect(builder.store, [folder]))
    refused = CliRunner().invoke(app, [*command, "--filter", "K=4"])
    assert "where a reader sorts, filters and chooses columns" in str(refused.exception)


def test_an_unknown_study_is_an_error(builder: Any) -> None:
    builder.study(1)
    done = CliRunner().invoke(app, ["report", "ablation", "--store", str(builder.store.root)])
    assert "no study 'ablation'" in str(done.exception)


def test_a_page_that_fails_does_not_end_a_run(builder: Any) -> None:
    folder = builder.study(1)
    told: list[str] = []
    assert write_run_report(builder.store, folder, told.append) == folder / "report.html"
    (folder / "trials.json").write_text("{")
    assert write_run_report(builder.store, folder, told.append) is None
    assert len(told) == 1
    assert "calm-bench report tries again" in told[0]
