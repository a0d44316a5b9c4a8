"""What the documentation is given when it is built: the page of commands, the gallery's report, cross-references.

    python docs/site_hooks.py runs/studies/k-ablation-*/report.html

takes the data out of a report that a run has written, for the gallery's.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):<code>~?([^<]+)</code>")
"""A cross-reference as docstrings write it, after Markdown has turned its backquotes into code."""

_REPORT_DATA = Path(__file__).with_name("k-ablation.json")
"""Of the report on the default study."""

_LIST_OF_COMMANDS = re.compile(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+\n?")
"""The page's own table of contents lists them, without cutting their descriptions short."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of commands, made from the command line itself, and the report of the default study."""
    from pipelines.report.page import render_data

    files.append(File.generated(config, "reference/commands.md", content=_commands()))
    files.append(File.generated(config, "reference/settings-by-path.md", content=_settings_by_path()))
    report = render_data(json.loads(_REPORT_DATA.read_text(encoding="utf-8")))
    files.append(File.generated(config, "k-ablation-report.html", content=report))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Show a docstring's cross-reference as the last part of its name."""
    return _ROLE.sub(lambda match: f"<code>{match[1].rpartition('.')[2]}</code>", html)


def _commands() -> str:
    import typer
    from typer.cli import get_docs_for_click

    from pipelines.app.cli import app

    command = typer.main.get_command(app)
    with typer.Context(command, info_name="calm-bench") as context:
        text = get_docs_for_click(obj=command, ctx=context, name="calm-bench", title="Commands")
    return _LIST_OF_COMMANDS.sub("", text)


def _settings_by_path() -> str:
    """A table of every setting: path, type, default, what presets say."""
    from pipelines.study.setting_paths import setting_paths

    lines = [
        "# Settings by path",
        "",
        "What `KEY=VALUE` and study files set. In a terminal: `calm-bench settings warmup`; for editors: "
        "`calm-bench schema > study.schema.json`, and `# yaml-language-server: $schema=study.schema.json` as the first "
        "line of a study.",
        "",
        "| path | type | default | presets |",
        "|---|---|---|---|",
    ]
    for one in setting_paths():
        presets = ", ".join(f"{name} `{value}`" for name, value in one.presets.items())
        cells = (f"`{one.path}`", f"`{one.type}`", f"`{one.default}`", presets)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _take_report(page: Path) -> None:
    from pipelines.report.page import data_of

    data = data_of(page.read_text(encoding="utf-8"))
    _REPORT_DATA.write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _take_report(Path(sys.argv[1]))
