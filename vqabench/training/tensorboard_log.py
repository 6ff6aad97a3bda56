"""A run's log for TensorBoard: `tensorboard --logdir runs` shows every run in a folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from vqabench.files.atomic import require_own
from vqabench.results import Manifest, Run
from vqabench.training.logs import hyperparameters

NEVER = 10**9
"""Seconds until the writer's own thread flushes. On a full disk it would print a traceback, so `write` flushes."""


class TensorBoardLog:
    """Writes `<run>/tensorboard/`, one file each time that the run is started or resumed.

    Everything is logged over steps, epochs too, so that one purge step voids all that is trained again.
    """

    name = "tensorboard"

    def __init__(self, run: Run) -> None:
        self.folder = run.folder / "tensorboard"
        self.writer: SummaryWriter | None = None

    @staticmethod
    def check_ready() -> None:
        """Do nothing: only the package is needed."""

    def start(self, manifest: Manifest, steps: int | None) -> str:
        """Start a file, which voids what earlier files have after `steps`."""
        require_own(self.folder)
        # TensorBoard reads files in the order of their names, which begin with the second they were created in.
        latest = max(
            (int(file.name.split(".")[3]) for file in self.folder.glob("events.out.tfevents.*.*")), default=0
        )
        time.sleep(min(max(0.0, latest + 1 - time.time()), 1.0))
        purge_step = None if steps is None else steps + 1
        self.writer = SummaryWriter(self.folder, purge_step=purge_step, flush_secs=NEVER)
        # Not `add_hparams`, which would write to a folder of its own. Without the first of the three summaries,
        # which would fix the columns for all runs, TensorBoard shows all columns.
        _, begin, self.end = hparams(dict(_flatten(hyperparameters(manifest))), {})  # type: ignore[no-untyped-call]
        self._add(begin)
        return str(self.folder)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write numbers at a step, immediately: a kill must not lose steps that a checkpoint includes."""
        assert self.writer is not None
        for name, number in numbers.items():
            self.writer.add_scalar(name, number, step)
        self.writer.flush()

    def write_scores(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Write final scores at the number of the chosen epoch, because its last step is not recorded."""
        self.write(epoch, numbers)
        self._add(self.end)

    def close(self, status: str) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()

    def _add(self, summary: object) -> None:
        assert self.writer is not None
        self.writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]
        self.writer.flush()


def _flatten(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Yield the numbers and words of nested tables and lists, by dotted names."""
    if isinstance(value, Mapping | list | tuple):
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, part in pairs:
            yield from _flatten(part, f"{name}.{key}".lstrip("."))
    elif value is not None:
        yield name, value
