"""A run's log for TensorBoard: `tensorboard --logdir runs` shows every run in a folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import RecordWriter
from torch.utils.tensorboard.summary import hparams, scalar

from vqabench.files.atomic import require_own
from vqabench.results import Manifest, Run
from vqabench.training.logs import Log, hyperparameters


class TensorBoardLog(Log):
    """Writes `<run>/tensorboard/`, one file each time that the run is started or resumed.

    Everything is logged over steps, epochs too, so that one purge step voids all that is trained again.
    """

    name = "tensorboard"

    # Not a SummaryWriter: its thread prints a traceback on a full disk, whatever the caller does.
    records: RecordWriter | None = None

    def __init__(self, run: Run) -> None:
        self.folder = run.folder / "tensorboard"

    def start(self, manifest: Manifest, steps: int | None) -> str:
        """Start a file, which voids what earlier files have after `steps`."""
        require_own(self.folder)
        self.folder.mkdir(exist_ok=True)
        # TensorBoard reads files in the order of their names.
        self.records = RecordWriter((self.folder / f"events.out.tfevents.{time.time_ns()}").open("xb"))
        self._add(Event(file_version="brain.Event:2"))
        if steps is not None:
            self._add(Event(session_log=SessionLog(status=SessionLog.START), step=steps + 1))
        # Without the first of the three summaries, which would fix the columns for all runs, TensorBoard shows
        # all columns.
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
        """Write an event immediately: a kill must not lose steps that a checkpoint includes."""
        assert self.records is not None
        event.wall_time = time.time()
        self.records.write(event.SerializeToString())
        self.records.flush()


def _flatten(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Yield the numbers and words of nested tables and lists, by dotted names."""
    if isinstance(value, Mapping | list | tuple):
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, part in pairs:
            yield from _flatten(part, f"{name}.{key}".lstrip("."))
    elif value is not None:
        yield name, value
