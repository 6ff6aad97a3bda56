"""`vqabench doctor`."""

import json
from dataclasses import asdict
from pathlib import Path

import typer

from vqabench.cli.formats import TEXT, Format, Out, choose_form, writing
from vqabench.cli.help import examples
from vqabench.cli.parameters import AsJson, Catalog, DataDir, Runs
from vqabench.reporting.output import say_json

EXAMPLES = examples("doctor", "doctor --data-dir /scratch/vqa --json")


def doctor(
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    catalog: Catalog = None,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Check this machine, the installation and the data.

    Shows the device, precision, processors, memory, disk, versions, plugins and prepared data sets on one screen,
    and how to fix each problem. No plugin's code is run. Exits with code 1 if something is broken.
    """
    form = choose_form(out, as_json, TEXT)
    from vqabench.reporting import lists
    from vqabench.workflows import doctor as workflow

    findings = list(workflow.examine(runs, data_dir, catalog))
    broken = any(finding.state == "broken" for finding in findings)
    with writing(out):
        if form is Format.json:
            # The standard library works even if other packages are broken.
            say_json(
                json.dumps({"well": not broken, "findings": [asdict(finding) for finding in findings]}, indent=2)
            )
        else:
            console = lists.stdout_console()
            width = max(len(finding.what) for finding in findings)
            for finding in findings:
                console.print(lists.draw_finding(finding.what, finding.state, finding.found, finding.fix, width))
    if broken:
        raise typer.Exit(1)
