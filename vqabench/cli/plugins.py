"""`vqabench plugins`."""

import json
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqabench.cli.completion import complete_plugins, complete_settings
from vqabench.cli.formats import LISTS, TEXT, Format, Out, choose_form, print_list, writing
from vqabench.cli.help import Command, Group, examples
from vqabench.cli.parameters import AsJson
from vqabench.reporting.output import say, say_json

if TYPE_CHECKING:
    from vqabench.workflows.plugins import PluginDetails

SIGNS = {"passed": "ok", "failed": "FAILED", "declared": "declared", "skipped": "skipped"}

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="List, inspect, check and create backbones and losses.",
    epilog=examples("plugins list", "plugins show updn", "plugins new my-model"),
)


@app.command("list", cls=Command, epilog=examples("plugins list", "plugins list --out plugins.csv"))
def list_plugins(as_json: AsJson = False, out: Out = None) -> None:
    """List the installed backbones and losses.

    Reads metadata only: no plugin's code is run. Names that several distributions offer are marked.
    """
    form = choose_form(out, as_json, LISTS)
    from vqabench import plugins
    from vqabench.reporting import lists

    found = plugins.available()
    clashes = plugins.find_clashes(found.plugins)
    marked = {plugin for clash in clashes for plugin in clash}
    for problem in found.problems:
        lists.warn(problem)
    for clash in clashes:
        names = " or ".join(plugin.qualified for plugin in clash)
        lists.warn(f"{len(clash)} distributions offer {clash[0].name}: write {names}")
    head = ("name", "kind", "distribution", "version", "entry_point", "clash")
    rows = [
        (one.name, plugins.KINDS[one.group], one.distribution, one.version, one.target, one in marked)
        for one in found.plugins
    ]
    with writing(out):
        if form is Format.json:
            say_json(json.dumps([dict(zip(head, row, strict=True)) for row in rows], indent=2))
        elif form is Format.csv:  # for programs: names as they are
            print_list(head, [(*row[:-1], str(row[-1]).lower()) for row in rows], form)
        else:
            shown = [(f"{name} (clash)" if clash else name, *others) for name, *others, clash in rows]
            print_list([name.replace("_", " ") for name in head[:-1]], shown, form)


@app.command("show", cls=Command, epilog=examples("plugins show updn", "plugins show rescale --json"))
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A backbone or a loss.", autocompletion=complete_plugins)
    ],
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Show a plugin's options, objectives and recipe."""
    form = choose_form(out, as_json, TEXT)
    from vqabench.workflows import plugins as workflow

    details = workflow.show_plugin(name)
    with writing(out):
        if form is Format.json:
            from vqabench.reporting.exports import to_json

            say_json(to_json(details))
        else:
            _print_details(details)


def _print_details(details: "PluginDetails") -> None:
    from vqabench.plugins import BACKBONES
    from vqabench.reporting import lists

    console = lists.stdout_console()
    console.print(details.plugin.describe(), markup=False)
    console.print(f"\n{details.description}\n", markup=False)
    console.print(f"objectives: {', '.join(details.objectives)}", markup=False)
    for head, reasons in (
        ("should not be combined with", details.advises_against),
        ("exempt from", details.declarations),
    ):
        if reasons:
            console.print()
            console.print(lists.draw_list((head, "because"), reasons.items()))
    if details.second_stage:
        console.print("combined with a transform, it is used only in the second stage")
    console.print()
    rows = [(option.name, option.allowed, str(option.default)) for option in details.options]
    console.print(lists.draw_list(("option", "allowed", "default"), rows) if rows else "no options")
    if details.recipe:
        recipe = [(f"recipe.{key}", str(value)) for key, value in details.recipe.items()]
        console.print()
        console.print(lists.draw_list(("recipe", "default"), recipe))
    elif details.plugin.group == BACKBONES:
        console.print("\nrecipe: its base's")


@app.command(
    "check",
    cls=Command,
    epilog=examples("plugins check updn", "plugins check updn --set hidden=64 --only padding"),
)
def check(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A backbone or a loss.", autocompletion=complete_plugins)
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set an option, as in vqabench train; repeatable.",
            autocompletion=complete_settings,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help="Run only this check, such as padding; repeatable."),
    ] = None,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Check that a plugin follows the plugin API.

    Runs it on generated questions and checks shapes, attention, padding, gradients, learning, saving, every
    strategy, bfloat16 and torch.compile. Exceptions that its author declares are listed with their reasons. Exits
    with code 1 if a check fails.
    """
    form = choose_form(out, as_json, TEXT)
    from vqabench.config import parse_settings
    from vqabench.plugins import find
    from vqabench.reporting import exports, lists
    from vqabench.workflows import plugins as workflow

    plugin = find(None, name)
    results = workflow.check_plugin(plugin, parse_settings(settings or []), only or ())
    with writing(out):
        console = lists.stdout_console()
        if form is Format.json:
            checks = list(results)
            say_json(exports.to_json(checks))
        else:
            console.print(plugin.describe(), markup=False)
            checks = []
            for one in results:
                checks.append(one)
                console.print(f"{SIGNS[one.status]:8}  {one.name}: {one.message}", markup=False, soft_wrap=True)
            counts = Counter(one.status for one in checks)
            console.print(", ".join(f"{count} {status}" for status, count in counts.items()))
    if any(one.status == "failed" for one in checks):
        if form is not Format.json:
            console.print(
                "If a check cannot apply to this class, declare that in its `declarations`, with the reason."
            )
        raise typer.Exit(1)


@app.command("new", cls=Command, epilog=examples("plugins new my-model", "plugins new my-loss --loss --in plugins"))
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The plugin's name, such as my-model.")],
    loss: Annotated[bool, typer.Option("--loss", help="Create a loss instead of a backbone.")] = False,
    folder: Annotated[
        Path,
        typer.Option(
            "--in", metavar="DIR", show_default=False, help="Where to create the new folder. [default: here]"
        ),
    ] = Path(),
) -> None:
    """Create a plugin that works, to start from.

    Writes a distribution with code, tests, README and CI.
    """
    from vqabench.workflows.plugins import write_plugin

    made = write_plugin(name, "loss" if loss else "backbone", folder)
    say(f"{made}: a working {'loss' if loss else 'backbone'} to start from")
    place = shlex.quote(f"{made if made.is_absolute() else f'./{made}'}[test]")
    say(f"next: pip install -e {place} && vqabench plugins check {name}")
