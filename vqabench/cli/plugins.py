"""`vqabench plugins`."""

import json
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqabench.cli.output import LISTS, TEXT, Format, Out, choose_form, print_list, writing
from vqabench.cli.parameters import AsJson, complete_plugins

if TYPE_CHECKING:
    from vqabench.workflows.plugins import PluginDetails

SIGNS = {"passed": "ok", "failed": "FAILED", "declared": "declared", "skipped": "skipped"}

app = typer.Typer(no_args_is_help=True, help="Installed backbones and losses.")


@app.command("list")
def list_plugins(as_json: AsJson = False, out: Out = None) -> None:
    """List all installed plugins, from their metadata alone."""
    form = choose_form(out, as_json, LISTS)
    from vqabench import plugins
    from vqabench.reporting import lists

    head = ("name", "kind", "distribution", "version", "entry_point")
    found = [plugins.available(group) for group in (plugins.BACKBONES, plugins.LOSSES)]
    rows = [
        (plugin.name, plugins.KINDS[plugin.group], plugin.distribution, plugin.version, plugin.target)
        for discovery in found
        for plugin in discovery.plugins
    ]
    for problem in dict.fromkeys(problem for discovery in found for problem in discovery.problems):
        lists.warn(problem)
    with writing(out):
        if form is Format.json:
            typer.echo(json.dumps([dict(zip(head, row, strict=True)) for row in rows], indent=2))
        else:
            print_list([name.replace("_", " ") for name in head], rows, form)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A plugin's name.", autocompletion=complete_plugins)],
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Load one plugin; show its objectives, its recipe, and its options with their defaults."""
    form = choose_form(out, as_json, TEXT)
    from vqabench.workflows import plugins as workflow

    details = workflow.show_plugin(name)
    with writing(out):
        if form is Format.json:
            from vqabench.reporting.exports import to_json

            typer.echo(to_json(details))
        else:
            _print_details(details)


def _print_details(details: "PluginDetails") -> None:
    from vqabench.plugins import BACKBONES
    from vqabench.reporting import lists

    console = lists.stdout_console()
    console.print(details.plugin.describe(), markup=False)
    console.print(f"\n{details.description}\n", markup=False)
    console.print(f"objectives: {', '.join(details.objectives)}", markup=False)
    for head, reasons in (("not with", details.advises_against), ("does not hold", details.declarations)):
        if reasons:
            console.print()
            console.print(lists.draw_list((head, "because"), reasons.items()))
    if details.second_stage:
        console.print("behind a transform it starts in the second stage")
    console.print()
    rows = [(option.name, option.allowed, str(option.default)) for option in details.options]
    console.print(lists.draw_list(("option", "allowed", "default"), rows) if rows else "no options")
    if details.recipe:
        recipe = [(f"recipe.{key}", str(value)) for key, value in details.recipe.items()]
        console.print()
        console.print(lists.draw_list(("recipe", "default"), recipe))
    elif details.plugin.group == BACKBONES:
        console.print("\nrecipe: its base's")


@app.command("check")
def check(
    name: Annotated[str, typer.Argument(help="A plugin's name.", autocompletion=complete_plugins)],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option, as for `train`; repeatable."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="CHECK", help="Only this check, such as padding; repeatable.")
    ] = None,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Check whether a plugin keeps what the plugin API promises; exit code 1 where it does not.

    It is tried on questions made up for the purpose: shapes, attention, padding, gradients, learning, saving, every
    strategy, bfloat16, torch.compile. What its author declares not to hold is told with the reason.
    """
    form = choose_form(out, as_json, TEXT)
    from vqabench.config import parse_settings
    from vqabench.plugins import find_of_any_kind
    from vqabench.reporting import exports, lists
    from vqabench.workflows import plugins as workflow

    plugin = find_of_any_kind(name)
    results = workflow.check_plugin(plugin, parse_settings(settings or []), only or ())
    with writing(out):
        console = lists.stdout_console()
        if form is Format.json:
            checks = list(results)
            typer.echo(exports.to_json(checks))
        else:
            console.print(plugin.describe(), markup=False)
            checks = []
            for one in results:
                checks.append(one)
                console.print(f"{SIGNS[one.status]:8}  {one.name}: {one.told}", markup=False, soft_wrap=True)
            counts = Counter(one.status for one in checks)
            console.print(", ".join(f"{count} {status}" for status, count in counts.items()))
    if any(one.status == "failed" for one in checks):
        if form is not Format.json:
            console.print("what cannot hold for it can be declared in its class, with the reason: `declarations`")
        raise typer.Exit(1)


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="The name that users will train it by, such as my-model.")],
    loss: Annotated[bool, typer.Option("--loss", help="A loss instead of a backbone.")] = False,
    folder: Annotated[
        Path, typer.Option("--in", metavar="DIR", help="Where the new folder is made.", show_default="here")
    ] = Path(),
) -> None:
    """Write a new plugin: a distribution with code, tests, README and CI that works as it is."""
    from vqabench.workflows.new_plugin import write_plugin

    made = write_plugin(name, "loss" if loss else "backbone", folder)
    typer.echo(f"{made}: a {'loss' if loss else 'backbone'} that works as it is")
    place = shlex.quote(f"{made if made.is_absolute() else f'./{made}'}[test]")
    typer.echo(f"next: pip install -e {place} && vqabench plugins check {name}")
