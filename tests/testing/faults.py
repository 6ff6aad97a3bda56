"""A correct network, to add faults to."""

from __future__ import annotations

import dataclasses
from typing import Any

from vqabench.api import Batch, Output
from vqabench.testing import Innermost, check_class


def failed(kind: type[Any], *only: str) -> dict[str, str]:
    """Return the message of each failed check."""
    return {check.name: check.message for check in check_class(kind, only=only) if check.status == "failed"}


class Sound(Innermost):
    """A network without faults."""


class Changed(Sound):
    """Changes its output."""

    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        return dataclasses.replace(output, **self.change(output, batch))

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        raise NotImplementedError
