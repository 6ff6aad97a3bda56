"""`vqabench doctor`."""

import json
from dataclasses import asdict
from pathlib import Path

import typer

from vqabench.cli.help import examples
from vqabench.cli.parameters import AsJson, Catalog, DataDir, Runs

EXAMPLES = examples("doctor", "doctor --data-dir /scratch/vqa --json")


def doctor(
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    catalog: Catalog = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine, the installation and the data.

    Shows the device, precision, processors, memory, disk, versions, plugins and prepared data sets on one screen,
    and for each problem what helps. No plugin's code is run. Exits with code 1 if something is broken.
    """
    from vqabench.reporting import lists
    from vqabench.workflows import doctor as workflow

    findings = list(workflow.examine(runs, data_dir, catalog))
    broken = any(finding.state == "broken" for finding in findings)
    if as_json:
        # Of the standard library, which works where other packages are broken.
        typer.echo(
            json.dumps({"well": not broken, "findings": [asdict(finding) for finding in findings]}, indent=2)
        )
    else:
        console = lists.stdout_console()
        for finding in findings:
            console.print(lists.draw_finding(finding.what, finding.state, finding.found, finding.fix))
    if broken:
        raise typer.Exit(1)
