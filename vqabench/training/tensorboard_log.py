"""A run's log for TensorBoard: `tensorboard --logdir runs` shows every run below a folder.

Everything is drawn over steps, so that one mark in the file withdraws all that is trained again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import RecordWriter
from torch.utils.tensorboard.summary import hparams, scalar

from vqabench.files.atomic import require_own
from vqabench.results import Manifest, Run
from vqabench.training.logs import hyperparameters


class TensorBoardLog:
    """Writes `<run>/tensorboard/`, one file for each time that the run goes on.

    Not by PyTorch's SummaryWriter: where its thread cannot write, as on a full disk, it prints a traceback.
    """

    def __init__(self, run: Run) -> None:
        self.folder = run.folder / "tensorboard"
        self.records: RecordWriter | None = None

    @staticmethod
    def check_ready() -> None:
        """Nothing is needed but the package."""

    def start(self, manifest: Manifest, steps: int | None) -> str:
        """Begin a file; in those before it, what comes behind `steps` is withdrawn."""
        require_own(self.folder)
        self.folder.mkdir(exist_ok=True)
        # TensorBoard reads files in the order of their names.
        self.records = RecordWriter((self.folder / f"events.out.tfevents.{time.time_ns()}").open("xb"))
        self._add(Event(file_version="brain.Event:2"))
        if steps is not None:
            self._add(Event(session_log=SessionLog(status=SessionLog.START), step=steps + 1))
        # Without the first of the three, which would fix the columns for all runs, TensorBoard takes all columns.
        _, begin, self.end = hparams(dict(_flatten(hyperparameters(manifest))), {})  # type: ignore[no-untyped-call]
        self._add(Event(summary=begin))
        return str(self.folder)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write numbers at a step."""
        values = [value for pair in numbers.items() for value in scalar(*pair).value]  # type: ignore[no-untyped-call]
        self._add(Event(summary=Summary(value=values), step=step))

    def write_scores(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Write final scores at the number of the chosen epoch, because its last step is not recorded."""
        self.write(epoch, numbers)
        self._add(Event(summary=self.end))

    def close(self, status: str) -> None:
        """Close the file."""
        records, self.records = self.records, None
        if records is not None:
            records.close()

    def _add(self, event: Event) -> None:
        """Write an event at once: a kill must not cost numbers of steps that a checkpoint has."""
        assert self.records is not None
        event.wall_time = time.time()
        self.records.write(event.SerializeToString())
        self.records.flush()


def _flatten(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Give the numbers and words of nested tables and lists, by dotted names."""
    if isinstance(value, Mapping | list):
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, part in pairs:
            yield from _flatten(part, f"{name}.{key}".lstrip("."))
    elif value is not None:
        yield name, value
