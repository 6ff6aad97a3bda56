"""The plan of a matrix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vqabench.bench.matrix import make_matrix, read_blocks
from vqabench.bench.matrix_plan import MatrixPlan, Timings
from vqabench.events import Warn
from vqabench.paths import Paths
from vqabench.reporting.plans import describe_plan, plan_to_json


def plan_of(folder: Path, timings: Timings) -> MatrixPlan:
    """Return a plan of four runs of ten epochs, two of which are finished."""
    line = {"settings": {}, "backbones": ["updn"], "seeds": (0, 1, 2, 3), "epochs": 10}
    cells = make_matrix(read_blocks(None, line), Paths(folder / "runs", folder / "data")).cells
    return MatrixPlan(
        cells,
        done=cells[:2],
        begun=cells[2:3],
        new=cells[3:],
        wrong={"e": "began otherwise"},
        undefined=("lm is not for ce",),
        warnings=("lxmert with mask: no",),
        timings=timings,
    )


def test_a_plan_lists_what_is_done_continues_begins_is_left_out_and_cannot_be_trained(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, Timings({("digits-cp", "css"): [330.0]}))
    names = [f"digits-cp updn ce-plain @epochs=10 seed {seed}" for seed in range(4)]
    assert describe_plan(plan) == [
        "5 runs: 2 finished already, 1 to resume, 1 to train",
        "left out: lm is not for ce",
        f"  {names[2]}",
        f"  {names[3]}",
        Warn("lxmert with mask: no"),
        Warn("e: began otherwise"),
        "about 1 h 50 min if run one after another, judging by earlier runs; there are none yet of updn",
    ]
    assert plan_to_json(plan) == {
        "done": names[:2],
        "begun": names[2:3],
        "new": names[3:],
        "wrong": {"e": "began otherwise"},
        "undefined": ["lm is not for ce"],
        "seconds": 6600.0,
    }


def test_a_single_run_has_no_order(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, Timings({("digits-cp", "updn"): [24.0]}))
    assert describe_plan(replace(plan, begun=()))[-1] == "about 4 min, judging by earlier runs"


def test_without_earlier_runs_the_time_is_unknown(tmp_path: Path) -> None:
    lines = describe_plan(plan_of(tmp_path, Timings()))
    assert lines[-1] == "the time is unknown until the first run has finished"
