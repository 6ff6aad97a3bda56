"""Trials: hostile input, broken plugins, faults and load, each tried with the command line.

A trial prepares a fault, runs a command, and checks the exit code, what was printed and which files are left.
Commands run in this process unless the fault would end it or concerns a process: its start, streams or signals.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent

import pytest

from tests.conftest import CommandLine
from tests.processes import Forked
from tests.tiny import write_tiny

PLUGIN = '''\
import os, sys
import torch
from torch import nn
from vqabench.api import Backbone, Output


class Model(Backbone):
    """A model of two layers whose forward pass does what a trial wants."""

    def __init__(self, spec, *, hidden: int = 8):
        super().__init__(spec)
        self.embedding = nn.EmbeddingBag(len(spec.words), hidden)
        self.classifier = nn.Linear(hidden, len(spec.answers))

    def forward(self, batch):
        logits = self.classifier(self.embedding(batch.tokens_BL))
{body}
        return Output(logits_BA=logits)
'''


@dataclass
class Trial:
    """An empty folder with a tiny data set, plugins, and the command line."""

    folder: Path
    cli: CommandLine
    """Runs the command line in this process, with the trial's plugins and catalogue."""
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        write_tiny(self.folder / "own")
        (self.folder / "plugins").mkdir()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("VQABENCH_")}
        self.environment = inherited | {
            "VQABENCH_DATA": str(self.folder / "data"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(self.folder / "plugins"),
        }

    @property
    def data(self) -> tuple[str, ...]:
        """Return the options that choose the tiny data set."""
        return ("--dataset", "tiny", *self.catalog)

    @property
    def catalog(self) -> tuple[str, ...]:
        """Return the option that names the tiny data set's catalogue."""
        return ("--catalog", str(self.folder / "own" / "catalog.toml"))

    def run(
        self,
        *arguments: str | Path,
        timeout: float = 600,
        stdin: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line in a process of its own, in the trial's folder."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment | dict(environment or {}),
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout,
            input=stdin,
            check=False,
        )

    def start(self, *arguments: str | Path) -> Forked:
        """Start the command line in a process of its own, in the trial's folder."""
        return Forked(tuple(map(str, arguments)), self.folder, self.environment)

    def train(self, backbone: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Train one epoch on the tiny data set, in this process; `arguments` may set another number."""
        options = ("--epochs", "1", "--set", "recipe.batch_size=16")
        return self.cli("train", backbone, *self.data, *options, *arguments)

    def command(self, *arguments: str | Path) -> list[str]:
        """Return the command for `subprocess`, with `folder` and `environment`."""
        return [sys.executable, "-m", "vqabench", *map(str, arguments)]

    def plugin(self, name: str, body: str = "pass") -> Path:
        """Install a backbone whose `forward(batch)` runs `body` on its `logits`; return its module."""
        module = self.install(name, PLUGIN.format(body=indent(body, " " * 8)))
        self.declare(name, f"[vqabench.backbones]\n{name} = trial_{name}:Model\n")
        return module

    def install(self, name: str, source: str) -> Path:
        """Write the module `trial_NAME` where Python finds it; return its file."""
        module = self.folder / "plugins" / f"trial_{name}.py"
        module.write_text(source, encoding="utf-8")
        return module

    def declare(self, name: str, entry_points: str) -> None:
        """Write the metadata of a distribution `vqabench-NAME` with these entry points."""
        info = self.folder / "plugins" / f"vqabench_{name}-0.1.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vqabench-{name}\nVersion: 0.1\n")
        (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")

    def runs(self, pattern: str = "*") -> list[Path]:
        """Return the folders of the runs on the tiny data set whose backbone matches `pattern`."""
        found = (self.folder / "runs" / "tiny").glob(f"{pattern}/*/seed-*/run.json")
        return sorted(manifest.parent for manifest in found)


def forget_plugins() -> None:
    """Let this process import changed plugins again."""
    for name in [name for name in sys.modules if name.startswith("trial_")]:
        del sys.modules[name]


@pytest.fixture
def trial(tmp_path: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    """Yield an empty folder with a tiny data set, plugins, and the command line."""
    trial = Trial(tmp_path, cli)
    monkeypatch.syspath_prepend(trial.folder / "plugins")
    monkeypatch.setenv("VQABENCH_CATALOG", str(trial.folder / "own" / "catalog.toml"))
    yield trial
    forget_plugins()
