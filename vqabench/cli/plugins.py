"""`vqabench plugins`."""

import json
import shlex
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from vqabench.cli.parameters import AsJson, complete_plugins
from vqabench.reporting.output import say, say_json

SIGNS = {"passed": "ok", "failed": "FAILED", "declared": "declared", "skipped": "skipped"}

app = typer.Typer(no_args_is_help=True, help="Installed backbones and losses.")


@app.command("list")
def list_plugins(as_json: AsJson = False) -> None:
    """List all installed plugins, from their metadata alone."""
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
    if as_json:
        say_json(json.dumps([dict(zip(head, row, strict=True)) for row in rows], indent=2))
    else:
        lists.stdout_console().print(lists.draw_list([name.replace("_", " ") for name in head], rows))


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A plugin's name.", autocompletion=complete_plugins)],
    as_json: AsJson = False,
) -> None:
    """Load one plugin; show its objectives, its recipe, and its options with their defaults."""
    from vqabench.plugins import BACKBONES
    from vqabench.reporting import lists
    from vqabench.workflows import plugins as workflow

    details = workflow.show_plugin(name)
    if as_json:
        from vqabench.reporting.exports import to_json

        say_json(to_json(details))
        return
    console = lists.stdout_console()
    console.print(details.plugin.describe())
    console.print(f"\n{details.description}\n")
    console.print(f"objectives: {', '.join(details.objectives)}")
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
) -> None:
    """Check whether a plugin keeps what the plugin API promises; exit code 1 where it does not.

    It is tried on questions made up for the purpose: shapes, attention, padding, gradients, learning, saving, every
    strategy, bfloat16, torch.compile. What its author declares not to hold is told with the reason.
    """
    from vqabench.config import parse_settings
    from vqabench.plugins import find_of_any_kind
    from vqabench.reporting import exports, lists
    from vqabench.workflows import plugins as workflow

    plugin = find_of_any_kind(name)
    results = workflow.check_plugin(plugin, parse_settings(settings or []), only or ())
    console = lists.stdout_console()
    if as_json:
        checks = list(results)
        say_json(exports.to_json(checks))
    else:
        console.print(plugin.describe())
        checks = []
        for one in results:
            checks.append(one)
            console.print(f"{SIGNS[one.status]:8}  {one.name}: {one.told}", soft_wrap=True)
        console.print(", ".join(f"{count} {status}" for status, count in Counter(c.status for c in checks).items()))
    if any(one.status == "failed" for one in checks):
        if not as_json:
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
    say(f"{made}: a {'loss' if loss else 'backbone'} that works as it is")
    place = shlex.quote(f"{made if made.is_absolute() else f'./{made}'}[test]")
    say(f"next: pip install -e {place} && vqabench plugins check {name}")
