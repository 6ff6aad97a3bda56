"""Time `vqabench --help` and the `--help` of a Typer app with two commands, alternately; print medians.

`python benchmarks/help_speed.py [--pairs 15]`
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TWO_COMMANDS = """
import typer

app = typer.Typer()


@app.command()
def one(name: str, count: int = 1) -> None:
    "Say hello."


@app.command()
def two(name: str, loud: bool = False) -> None:
    "Say goodbye."


app()
"""


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([*command, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.py"
        small.write_text(TWO_COMMANDS)
        commands = ([sys.executable, "-m", "vqabench"], [sys.executable, str(small)])
        for command in commands:
            seconds(command)  # fills the caches
        times = [[seconds(command) for command in commands] for _ in range(pairs)]
    ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(a / b for a, b in times)
    print(f"vqabench --help {1000 * ours:.0f} ms, two-command app {1000 * theirs:.0f} ms; median ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
