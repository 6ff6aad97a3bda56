"""Whether a plugin computes in another process what it computes here.

Python's `hash` differs there, as it does between `train` and a later `predict`: a tokeniser that numbers words by
it, or by the order of a set, gives a trained model other words.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vqabench.api import Backbone, DataSpec, Loss
from vqabench.files.python_process import child_environment, python_command
from vqabench.plugins import Plugin
from vqabench.testing.backbones import agree, build_seeded
from vqabench.testing.checks import Trial, require
from vqabench.testing.samples import make_sample, make_spec

SECONDS = 300
"""A process that takes longer hangs."""
SAMPLE = 8

Observed = dict[str, Tensor]
"""What a plugin computed, by what it is."""


class ProcessCheck:
    """The check of one installed plugin, with settings; `observe` computes here what it computes elsewhere, too."""

    def __init__(self, plugin: Plugin, settings: Mapping[str, object], observe: Callable[[], Observed]) -> None:
        self.plugin, self.settings, self.observe = plugin, settings, observe

    def trials(self) -> list[Trial]:
        """Return the check."""
        return [Trial("processes", self.check_processes)]

    def check_processes(self) -> str:
        """In a second process, with another PYTHONHASHSEED, it computes the same."""
        here, there = self.observe(), self._observe_elsewhere()
        cause = "does it depend on Python's hash(), or on the order of a set?"
        require(here.keys() == there.keys(), f"it has different parameters or extras in another process; {cause}")
        for name, one in here.items():
            if name.startswith("logits"):
                agree(one, there[name], f"in another process ({cause})")
            else:
                same = one.shape == there[name].shape and torch.equal(one, there[name])
                require(same, f"{name} differ in another process; {cause}")
        return "the same in a second process, where Python's hash() differs"

    def _observe_elsewhere(self) -> Observed:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "observed.safetensors"
            asked = {"plugin": dataclasses.asdict(self.plugin), "settings": dict(self.settings), "out": str(out)}
            ended = subprocess.run(
                python_command("vqabench.testing.second_process"),
                input=json.dumps(asked),
                env=child_environment()
                | {"PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") == "2" else "2"},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS,
                check=False,
            )
            lines = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
            require(ended.returncode == 0 and out.is_file(), f"it cannot be used in another process: {lines[-1]}")
            return load_file(out)


def observe_backbone(build: Callable[[DataSpec], Backbone]) -> Observed:
    """Return what a backbone makes of questions, its parameters as they start, and its answers."""
    spec = make_spec()
    model = build_seeded(build, spec).eval()
    sample = make_sample(spec, SAMPLE, odd=True)
    batch = sample.given_to(model).replace(targets_BA=None, answered_B=None)
    with torch.no_grad():
        logits_BA = model(batch).logits_BA.float()
    observed = {f"the questions' {name}": rows for name, rows in batch.extras.items()}
    observed |= {f"the starting values of {name}": one for name, one in model.named_parameters()}
    return observed | {"logits": logits_BA}


def observe_loss(build: Callable[[DataSpec, str], Loss], objectives: tuple[str, ...]) -> Observed:
    """Return a loss's value under each of its objectives."""
    spec = make_spec()
    batch = make_sample(spec, SAMPLE, odd=True).batch
    logits_BA = torch.randn(SAMPLE, len(spec.answers), generator=torch.Generator().manual_seed(0))
    observed: Observed = {}
    for objective in objectives:
        torch.manual_seed(0)
        observed[f"values under {objective}"] = build(spec, objective)(logits_BA, batch)
    return observed


def write_observed(observed: Observed, out: Path) -> None:
    """Write what a plugin computed."""
    save_file({name: one.detach().clone().contiguous() for name, one in observed.items()}, out)
