"""The check that a plugin computes the same in another process.

Python's `hash` differs between processes, for instance between `train` and a later `predict`. A tokeniser that
numbers words by it, or by the order of a set, gives a trained model other words.
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
from safetensors.torch import load_file
from torch import Tensor

from vqabench.api import Backbone, DataSpec, Loss
from vqabench.files.python_process import child_environment, python_command
from vqabench.plugins import Plugin
from vqabench.testing.backbone_checks import agree, build_seeded
from vqabench.testing.checks import require
from vqabench.testing.samples import make_sample, make_spec

SECONDS = 300
"""A process that takes longer is taken to hang."""
SAMPLE = 8
SECOND_PROCESS = "from vqabench.testing.conformance import observe_from_stdin; observe_from_stdin()"
"""Not `python -m`: plugins and this package are then imported under their own names, as everywhere else."""

Observed = dict[str, Tensor]
"""What a plugin computed, by name."""


def check_processes(plugin: Plugin, settings: Mapping[str, object], here: Observed) -> str:
    """Check that a second process, with another PYTHONHASHSEED, computes the same as `here`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "observed.safetensors"
        request = {"plugin": dataclasses.asdict(plugin), "settings": dict(settings), "out": str(out)}
        # Another hash seed than this process's, if it has one.
        hash_seed = "1" if os.environ.get("PYTHONHASHSEED") == "2" else "2"
        ended = subprocess.run(
            python_command("-c", SECOND_PROCESS),
            input=json.dumps(request),
            env=child_environment() | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
        lines = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        require(ended.returncode == 0 and out.is_file(), f"it fails in another process: {lines[-1]}")
        there = load_file(out)
    cause = "does it depend on Python's hash(), or on the order of a set?"
    require(here.keys() == there.keys(), f"its parameters or extras differ in another process; {cause}")
    for name, one in here.items():
        if name.startswith("logits"):
            agree(one, there[name], f"in another process ({cause})")
        else:
            same = one.shape == there[name].shape and torch.equal(one, there[name])
            require(same, f"{name} differ in another process; {cause}")
    return "the same in a second process, where Python's hash() differs"


def observe_backbone(build: Callable[[DataSpec], Backbone]) -> Observed:
    """Return a backbone's prepared questions, its initial parameters, and its logits."""
    spec = make_spec()
    model = build_seeded(build, spec).eval()
    sample = make_sample(spec, SAMPLE, odd=True)
    batch = sample.given_to(model).replace(targets_BA=None, answered_B=None)
    with torch.no_grad():
        logits_BA = model(batch).logits_BA.float()
    observed = {f"the questions' {name}": rows for name, rows in batch.extras.items()}
    observed |= {f"the initial values of {name}": one for name, one in model.named_parameters()}
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
