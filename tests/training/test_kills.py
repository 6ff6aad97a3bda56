"""Nothing is lost when a process is killed, wherever that is."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from tests.tiny import write_tiny
from tests.training.kills import (
    Doomed,
    ForkedRun,
    Process,
    check_whole,
    commanded,
    contents,
    has,
    kill,
    where_it_fell,
)
from vqabench.paths import Paths

PHASES = ("preparation", "training", "checkpointing", "evaluation", "scoring")
KILLS = 18
COMMANDED = 3
"""The kill of the real command line, whose process takes seconds to start."""

Sign = Callable[[Doomed, float], bool]


def written(pattern: str) -> Sign:
    """Return the sign that a file of the run was written since a process began."""
    return lambda doomed, began: has(doomed.run.folder, pattern, began)


def trained(doomed: Doomed, began: float) -> bool:
    """Return whether all that is left is to answer and to score."""
    return doomed.has_trained() and has(doomed.run.folder, "run.json", began)


AIMS: list[tuple[Sign, float]] = [
    (lambda doomed, began: True, 0.3),
    (lambda doomed, began: has(doomed.data, ".features.h5.shards-*", began), 0.1),
    (lambda doomed, began: has(doomed.data, ".prepared.h5.part-*", began), 0.005),
    (lambda doomed, began: doomed.run.folder.is_dir(), 0.01),
    (written("resume.pt"), 0.3),
    (written(".resume.pt.part-*"), 0.005),
    (written(".model.safetensors.part-*"), 0.005),
    (written("model.safetensors"), 0.2),
    (trained, 0.03),
    (trained, 0.03),
    (written("predictions.val.json"), 0.1),
    (written("predictions.test.json"), 0.01),
    (written("scores.json"), 0.003),
]
"""Signs that appear one after another during a run, and the longest delay of a kill after each, in seconds."""


def doomed_runs(folder: Path) -> Iterator[tuple[Doomed, Doomed]]:
    """Yield runs to kill, each with one to leave alone; every second one selects its epoch on `val`."""
    catalog = write_tiny(folder / "own", {"train": 400, "val": 1000, "test": 1200}, images=600)
    for number in count():
        seed, select = number % 2, ("last", "val")[number % 2]
        whole = Doomed(Paths(folder / "whole", folder / "whole-data", catalog), seed, select, 10)
        paths = Paths(folder / f"runs-{number}", folder / f"data-{number}", catalog)
        yield Doomed(paths, seed, select), whole


@pytest.mark.slow
def test_whatever_is_killed_wherever_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    chance = random.Random(0)
    fallen: Counter[str] = Counter()
    for doomed, whole in doomed_runs(tmp_path):
        assert ForkedRun(whole).wait() == 0
        for sign, longest in AIMS:
            before, began = doomed.position(), time.time()
            process: Process = commanded(doomed) if fallen.total() == COMMANDED else ForkedRun(doomed)
            if not kill(process, partial(sign, doomed, began), chance.uniform(0, longest)):
                break  # it was finished first
            fallen[where_it_fell(doomed, began)] += 1
            check_whole(doomed)
            assert doomed.position() >= before
        assert ForkedRun(doomed).wait() == 0
        assert contents(doomed) == contents(whole)
        # How long a phase takes depends on the machine, so one may be missed for a while.
        if (fallen.total() >= KILLS and all(fallen[phase] for phase in PHASES)) or fallen.total() > 6 * KILLS:
            break
    assert all(fallen[phase] for phase in PHASES), fallen
