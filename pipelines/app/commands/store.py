"""Commands on a store: what is there, is it intact, what does nobody need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.app.commands.options import AsJson, StorePath, console, print_json, say
from pipelines.common.numbers import printable

if TYPE_CHECKING:
    from pipelines.store.inventory import StoredStage
    from pipelines.store.store import Store

MOST_NAMED = 5
"""Missing stages of a study that are listed; --json lists all."""

app = typer.Typer(
    name="store",
    help="What the store holds: list it, check it, clear it.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def ls(store: StorePath = None, as_json: AsJson = False) -> None:
    """List the stages: size, age, which studies need them, and who works on them."""
    from pipelines.store.inventory import stored_stages
    from pipelines.store.render import stage_dict, stage_table, totals

    opened = _open(store)
    stages = stored_stages(opened)
    if as_json:
        total = sum(stage.size for stage in stages)
        print_json({"stages": [stage_dict(stage) for stage in stages], "bytes": total})
        return
    screen = console()
    if stages:
        screen.print(stage_table(stages))
        screen.print()
    say(screen, f"{opened.uri}: {totals(stages)}")


@app.command()
def verify(store: StorePath = None, as_json: AsJson = False) -> None:
    """Read every finished stage and compare it with the hashes that were recorded when it was published.

    Exit code 1 where one is damaged, or where a study has ended with a stage that is not there.
    """
    from calm_bench.kept_folders import check_kept
    from pipelines.store.inventory import missing_stages, stored_stages

    opened = _open(store)
    damaged: list[tuple[StoredStage, list[str]]] = []
    unrecorded: list[StoredStage] = []
    intact = 0
    for stage in stored_stages(opened):
        if stage.state != "done":
            continue
        problems = opened.verify(stage.kind, stage.identity)
        if problems:
            # Files that somebody has moved with the whole store are not damaged.
            check_kept(opened.root)
        if problems is None:
            unrecorded.append(stage)
        elif problems:
            damaged.append((stage, problems))
        else:
            intact += 1
    missing = missing_stages(opened)
    if missing:
        check_kept(opened.root)
    if as_json:
        print_json(
            {
                "intact": intact,
                "damaged": [{"folder": str(stage.folder), "damage": problems} for stage, problems in damaged],
                "without_hashes": [str(stage.folder) for stage in unrecorded],
                "missing": [{"study": one.folder.name, "stages": list(one.names)} for one in missing],
            }
        )
    else:
        screen = console()
        say(screen, f"{opened.uri}: {intact} finished stages are intact, {len(damaged)} are damaged")
        if unrecorded:
            say(screen, f"{len(unrecorded)} were published without hashes by an older version; nothing tells of these")
        for stage, problems in damaged:
            say(screen, f"{stage.label}: {'; '.join(problems)}", style="red")
            users = ", ".join(stage.studies)
            again = f"; calm-bench run STUDY makes it again, of {users}" if users else ""
            say(screen, f"    remove {opened.sign(stage.kind, stage.identity)}{again}")
        for one in missing:
            are = "a stage that is" if len(one.names) == 1 else f"{len(one.names)} stages that are"
            named = ", ".join(one.names[:MOST_NAMED]) + (", ..." if len(one.names) > MOST_NAMED else "")
            say(screen, f"{printable(one.study)} has ended with {are} not there: {named}", style="red")
            say(screen, f"    {_again(one.folder, opened)}")
    if damaged or missing:
        raise typer.Exit(1)


@app.command()
def gc(
    store: StorePath = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it, instead of only saying what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find what no study in the store needs, and work that nobody will go on with; remove it with --delete."""
    from pipelines.store.render import size, waste_dict, waste_table
    from pipelines.store.sweeping import find_waste, remove

    opened = _open(store)
    waste = find_waste(opened)
    if delete:
        waste = remove(opened, waste)
    total = sum(item.size for item in waste)
    if as_json:
        found = [waste_dict(item) for item in waste]
        print_json({"deleted": delete, "items": found, "bytes": total})
        return
    screen = console()
    if waste:
        screen.print(waste_table(waste))
        screen.print()
    if not waste:
        say(screen, f"{opened.uri}: studies or processes need all that is there")
    elif delete:
        say(screen, f"{opened.uri}: removed {size(total)}")
    else:
        say(screen, f"{opened.uri}: {size(total)} could go; nothing was removed, --delete does it")


def _again(study: Path, store: Store) -> str:
    """What makes the missing stages of the study in the folder ``study``."""
    from pipelines.store.study_names import how_to_run_again
    from pipelines.store.study_record import STUDY_FILE

    command = how_to_run_again(study, store.uri)
    if command is None:
        return f"bring them from where the study was run: {study} has no {STUDY_FILE} that can be read"
    return f"{command} makes them again"


def _open(where: str | None) -> Store:
    from calm_bench.overrides import ConfigurationError
    from pipelines.store.opening import open_store
    from pipelines.store.study_names import how_to_begin

    opened = open_store(where)
    if not opened.exists():
        raise ConfigurationError(f"there is no store {opened.uri}: {how_to_begin(opened.uri)}")
    return opened
