"""The second process of the check `processes`: write what a plugin computes here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from vqabench.plugins import Plugin, contained
from vqabench.testing.conformance import observe_plugin
from vqabench.testing.processes import write_observed


def main() -> None:
    """Read from stdin which plugin to use, and how."""
    asked = json.load(sys.stdin)
    torch.set_num_threads(1)
    with contained():
        observed = observe_plugin(Plugin(**asked["plugin"]), asked["settings"])
    write_observed(observed, Path(asked["out"]))


if __name__ == "__main__":
    main()
