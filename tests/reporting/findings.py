"""What a report shows, written by hand where no run needs to be trained for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vqabench.data.prepare.digits import Picture
from vqabench.evaluation.findings import ChangedPair, ChangedQuestion, DatasetFindings, Region, Reply
from vqabench.evaluation.rows import Row
from vqabench.paths import Paths
from vqabench.workflows.report import gather

HOSTILE = "<script>alert(1)</script>\"'&"


def gather_written(folder: Path) -> DatasetFindings:
    """Gather runs of one data set, of which nothing but the runs is there."""
    (findings,) = gather([folder], None, Paths(folder, folder / "no-data"))
    return findings


def describe_changed(rows: Sequence[Row], text: str) -> ChangedPair:
    """Return findings in which a strategy changed one question, with the text in every field that takes one."""
    picture = Picture(2, 1, b"\xff\0\0\0\xff\0")
    regions = (Region((0.1, 0.1, 0.4, 0.4), text, picture), Region((0.5, 0.5, 0.9, 0.9), text, None))
    before = Reply(text, 0.25, 0.0, (0.25, 0.75))
    asked = ChangedQuestion(7, text, text, ((text, 10),), before, Reply(text, None, 1.0, None), regions)
    return ChangedPair(rows[0], rows[1], 0, "test", 10, 1, 0, (asked,), (), (text,))
