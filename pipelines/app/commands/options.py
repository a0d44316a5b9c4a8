"""Options and habits of speech that the subcommands share."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from calm_bench.devices import resolve_device
from calm_bench.errors import FAILED
from pipelines.common.sanitize import without_controls
from pipelines.common.screen import why_lost

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.study.config import Study

DEFAULT_STUDY = "k-ablation"

StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="A shipped study, or a YAML file.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings that win over the study's.")]
MODEL_HELP = "A model's folder, or its name in the store: LABEL, STUDY/LABEL, LABEL@SEED, STUDY#TRIAL or best."
StorePath = Annotated[
    str | None,
    typer.Option("--store", help="Folder of all results, or an address such as s3://bucket/path; runs where unset."),
]
Device = Annotated[
    str,
    typer.Option("--device", help="cpu, cuda or cuda:N; auto is a GPU where there is one.", callback=resolve_device),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TokenizerName = Annotated[
    str | None,
    typer.Option("--tokenizer", help="Folder of a tokenizer, or bytes, where the model brings none or another one."),
]
AutoencoderFolder = Annotated[
    Path | None, typer.Option("--autoencoder", help="Folder of a released model's autoencoder, if it carries none.")
]


def named_study(name: str, overrides: list[str] | None, store: str | None, local: bool = False) -> Study:
    """The study of that name or file with its overrides, and what options change in its execution."""
    from pipelines.study.catalogue import resolve_study, unused_settings

    settings = list(overrides or ())
    if "=" in name and not Path(name).exists():
        # The study may be left out: calm-bench run corpus.source=text.jsonl
        settings.insert(0, name)
        name = DEFAULT_STUDY
    resolved = resolve_study(name, settings)
    for note in unused_settings(name, settings, resolved):
        say_on_stderr(f"note: {note}")
    execution = resolved.execution
    changes: dict[str, str] = {}
    if store is not None:
        changes["store"] = store
    if local:
        changes["backend"] = "local"
    return resolved.model_copy(update={"execution": execution.model_copy(update=changes)})


def console() -> Console:
    """Where results are printed; once its reader has gone, as ``head`` does, what follows is printed nowhere.

    A command that has something to finish finishes it.
    """
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            print_nowhere()

    return Screen()


def print_nowhere() -> None:
    """Let everything go nowhere that is still to be printed: nobody reads it any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def error_console() -> Console:
    """Where people read what must not mix with results in a pipe."""
    from rich.console import Console

    return Console(stderr=True)


def say(screen: Console, text: str, style: str = "") -> None:
    """Print text that is not markup, unbroken, so that paths can be copied."""
    from rich.text import Text

    screen.print(Text(without_controls(text), style=style), soft_wrap=True)


def say_on_stderr(text: str) -> None:
    """Print what is no result."""
    print(without_controls(text), file=sys.stderr)


def print_json(result: object, indent: int | None = 2) -> None:
    """Print what a command found as JSON, for programs; numbers that JSON lacks (NaN and infinities) are null.

    Args:
        indent: spaces of a level; None prints one line, for results that come one after the other.
    """
    print(json.dumps(_finite(result), indent=indent, allow_nan=False), flush=True)


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_picture(path: Path, kinds: tuple[str, ...] = (".png", ".svg", ".pdf")) -> None:
    """Find out whether a picture can be written to ``path``, before what it is to show is made.

    Raises:
        ConfigurationError: it cannot, by its name or its folder; says what would do.
        OSError: no file can be made there; names ``path``.
    """
    from calm_bench.atomic import refuse_unwritable
    from calm_bench.overrides import ConfigurationError

    if path.suffix.lower() not in kinds:
        raise ConfigurationError(f"--picture {path}: the name must end in {', '.join(kinds)}, which say what to draw")
    if path.is_dir() or not path.absolute().parent.is_dir():
        what = f"{path} is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise ConfigurationError(f"--picture {path}: {what}: name a file in a folder that is there")
    refuse_unwritable(path)


def names_and_files(studies: list[str], merge: list[Path] | None) -> tuple[list[str], list[Path]]:
    """A shell writes ``--merge results/*.json`` as one option and further arguments."""
    if merge is None:
        return studies, []
    files = [name for name in studies if name.endswith(".json") and Path(name).is_file()]
    return [name for name in studies if name not in files], [*merge, *map(Path, files)]


@contextmanager
def windows_done() -> Iterator[Callable[[str, int, int], None]]:
    """Shows how far scoring is, a bar for each protocol, on a terminal's stderr; elsewhere nothing."""
    from rich.progress import Progress, TaskID

    from pipelines.common.screen import is_live

    screen = error_console()
    bars: dict[str, TaskID] = {}
    with Progress(console=screen, transient=True, disable=not is_live(screen)) as shown:

        def progress(name: str, done: int, total: int) -> None:
            if name not in bars:
                bars[name] = shown.add_task(f"scoring, {name}", total=total)
            shown.update(bars[name], completed=done, total=total)

        yield progress


def end_if_unseen(stream: IO[str]) -> None:
    """End a command that only shows when its reader has left, or its terminal is gone."""
    if why_lost(stream):
        raise typer.Exit(FAILED)


def single_threaded() -> None:
    """As the stages do it, so that equal work gives equal numbers."""
    import torch

    from calm_bench.freed_memory import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
