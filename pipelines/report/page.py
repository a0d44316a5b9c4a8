"""The page: data, style and scripts in one file that asks nobody for anything.

What comes from runs is data and never markup: it stands in a script element of the type ``application/json`` with every
``<`` escaped, and the script puts it on the page as text only. A content security policy forbids the rest: no network,
no form, and no script but the one whose hash it names.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calm_bench.atomic import write_bytes
from pipelines.common.canvas import PALETTE
from pipelines.common.with_parent import end_with_parent
from pipelines.execution.environment import SAFE_PATH, environment
from pipelines.report.data import FORMAT, VERSION, Report
from pipelines.store.trial_record import TRIALS_FILE

if TYPE_CHECKING:
    from pipelines.store.store import Store

SCRIPT = "report.js"
"""Made from ``scripts/`` (``npm run build`` there), Observable Plot and D3 included."""
STYLES = tuple(
    f"{name}.css" for name in ("base", "layout", "headline", "controls", "charts", "tables", "texts", "media")
)
REPORT = "report.html"
_DATA = '<script type="application/json" id="data">'
LARGE_BYTES = 500_000
"""Size of a study's ``trials.json`` from which on its report is written by a process of its own: the values of a
thousand trials are hundreds of megabytes, which the driver would keep."""


def write_report(store: Store, folders: Sequence[Path], path: Path) -> Path:
    """Write the report on the studies in ``folders`` to ``path``; returns ``path``.

    Raises:
        ConfigurationError, LeaderboardError: a file of a study is damaged.
    """
    from pipelines.report.collect import collect

    write_bytes(path, render(collect(store, folders)).encode())
    return path


def write_run_report(store: Store, folder: Path, notify: Callable[[str], None]) -> Path | None:
    """:func:`write_report` at the end of a run, into the study's ``folder``; None where it fails.

    The results are there by then and a page about them can be made again, so no error of it may end the run.
    """
    try:
        if (folder / TRIALS_FILE).stat().st_size < LARGE_BYTES:
            return write_report(store, [folder], folder / REPORT)
        with (
            environment(SAFE_PATH),
            ProcessPoolExecutor(
                1, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_parent
            ) as process,
        ):
            return process.submit(write_report, store, [folder], folder / REPORT).result()
    except Exception as error:
        notify(f"the report was not written ({type(error).__name__}: {error}); calm-bench report tries again")
        return None


def render(report: Report) -> str:
    """The whole page. Equal reports give equal pages."""
    return render_data(report.to_dict())


def render_data(data: Mapping[str, Any]) -> str:
    """:func:`render` of a report's data, as :func:`data_of` reads them back from a page.

    Raises:
        ValueError: they are not the data of a report, or of one of another version.
    """
    if (data.get("format"), data.get("version")) != (FORMAT, VERSION):
        raise ValueError(f"not the data of a report of version {VERSION}: make the report again")
    script = _asset(SCRIPT)
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src 'sha256-{_digest(script)}'",
            "style-src 'unsafe-inline'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    parts = {
        "POLICY": html.escape(policy, quote=True),
        "TITLE": html.escape(f"{data['title']} · calm-bench report"),
        "PALETTE": " ".join(f"--family-{index}: {colour};" for index, colour in enumerate(PALETTE)),
        "STYLE": "\n".join(_asset(name) for name in STYLES),
        "DATA": _json(data),
        "SCRIPT": script,
    }
    # One pass over the template alone: what is put in is not searched for further marks.
    pieces = _asset("page.html").split("{{")
    return pieces[0] + "".join(parts[mark] + rest for mark, _, rest in (piece.partition("}}") for piece in pieces[1:]))


def data_of(page: str) -> dict[str, Any]:
    """The data in a page that :func:`render` made."""
    data: dict[str, Any] = json.loads(page.partition(_DATA)[2].partition("</script>")[0])
    return data


def _json(data: Mapping[str, Any]) -> str:
    """JSON that can neither end its element nor open another; U+2028 and U+2029 are line ends to some readers."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


@cache
def _asset(name: str) -> str:
    return files("pipelines.report").joinpath("assets", *name.split("/")).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
