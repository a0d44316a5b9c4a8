"""Commands on a store: what is there, is it intact, what does nobody need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.app.commands.options import AsJson, StorePath, console, print_json, say

if TYPE_CHECKING:
    from pipelines.store.inventory import StoredStage
    from pipelines.store.store import Store

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
    """Read every finished stage and compare it with the hashes that were recorded when it was published."""
    from pipelines.store.inventory import stored_stages

    opened = _open(store)
    damaged: list[tuple[StoredStage, list[str]]] = []
    unrecorded: list[StoredStage] = []
    intact = 0
    for stage in stored_stages(opened):
        if stage.state != "done":
            continue
        problems = opened.verify(stage.kind, stage.identity)
        if problems is None:
            unrecorded.append(stage)
        elif problems:
            damaged.append((stage, problems))
        else:
            intact += 1
    if as_json:
        print_json(
            {
                "intact": intact,
                "damaged": [{"folder": str(stage.folder), "damage": problems} for stage, problems in damaged],
                "without_hashes": [str(stage.folder) for stage in unrecorded],
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
            again = f"; calm-bench run makes it again ({users})" if users else ""
            say(screen, f"    remove {stage.folder}{again}")
    if damaged:
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


def _open(where: str | None) -> Store:
    from calm_bench.overrides import ConfigurationError
    from pipelines.store.opening import open_store

    opened = open_store(where)
    if not opened.exists():
        raise ConfigurationError(f"there is no store {opened.uri}: --store names another")
    return opened
