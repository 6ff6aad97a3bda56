"""`vqabench plugins`."""

import json
from typing import Annotated

import typer

from vqabench.cli.parameters import AsJson, complete_plugins

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
        typer.echo(json.dumps([dict(zip(head, row, strict=True)) for row in rows], indent=2))
    else:
        lists.stdout_console().print(lists.draw_list([name.replace("_", " ") for name in head], rows))


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A plugin's name.", autocompletion=complete_plugins)],
    as_json: AsJson = False,
) -> None:
    """Load one plugin; show its objectives, its recipe, and its options with their defaults."""
    from vqabench.reporting import lists
    from vqabench.workflows import plugins as workflow

    details = workflow.show_plugin(name)
    if as_json:
        from vqabench.reporting.exports import to_json

        typer.echo(to_json(details))
        return
    plugin = details.plugin
    console = lists.stdout_console()
    console.print(f"{plugin.name}, from {plugin.distribution} {plugin.version} ({plugin.target})", markup=False)
    console.print(f"\n{details.description}\n", markup=False)
    console.print(f"objectives: {', '.join(details.objectives)}\n", markup=False)
    rows = [(option.name, option.allowed, str(option.default)) for option in details.options]
    console.print(lists.draw_list(("option", "allowed", "default"), rows) if rows else "no options")
    if details.recipe:
        recipe = [(f"recipe.{key}", str(value)) for key, value in details.recipe.items()]
        console.print()
        console.print(lists.draw_list(("recipe", "default"), recipe))
