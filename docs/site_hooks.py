"""What the documentation's pages are given when the site is built: the commands, and readable cross-references."""

from __future__ import annotations

import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):<code>~?([^<]+)</code>")
"""A cross-reference as docstrings write it, after Markdown has turned its backquotes into code."""

_LIST_OF_COMMANDS = re.compile(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+\n?")
"""The page's own table of contents lists them, without cutting their descriptions short."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of commands, made from the command line itself."""
    files.append(File.generated(config, "reference/commands.md", content=_commands()))
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
