"""What one watches of a matrix, in a terminal and in a file."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field

import pytest

from vqabench.reporting.matrix import WatchedMatrix, format_time, plan_to_json
from vqabench.reporting.terminal import Terminal

LONG = "vqa-cp-v2 css-lmh bce-mask+rescale @base.hidden=512,mask.dropout=0.5,rescale.variant=released seed 12"


@dataclass(frozen=True)
class Named:
    name: str


@dataclass(frozen=True)
class Estimate:
    seconds: float
    guessed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    done: tuple[Named, ...] = ()
    begun: tuple[Named, ...] = ()
    new: tuple[Named, ...] = ()
    wrong: dict[str, str] = field(default_factory=dict)
    undefined: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    estimate: Estimate | None = None


def watched(width: int | None = None) -> tuple[WatchedMatrix, io.StringIO]:
    """Give what tells of a matrix in a terminal so wide, or into a file."""
    matrix, shown = WatchedMatrix(), io.StringIO()
    terminal = width is not None
    matrix.console = Terminal(file=shown, force_terminal=terminal, width=width, soft_wrap=True, color_system=None)
    return matrix, shown


def lines_of(shown: io.StringIO) -> list[str]:
    """Give every line that was drawn, without what moves the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue().replace("\r", "\n")).splitlines()


def test_a_plan_tells_what_is_done_goes_on_begins_is_left_out_and_is_in_the_way() -> None:
    matrix, shown = watched()
    plan = Plan(
        done=(Named("a"), Named("b")),
        begun=(Named("c"),),
        new=(Named("d [x]"),),
        wrong={"e": "began otherwise"},
        undefined=("lm is not for ce",),
        warnings=("lxmert with mask: no",),
        estimate=Estimate(6600.0, ("css", "lxmert")),
    )
    matrix.plan(plan)
    assert shown.getvalue().splitlines() == [
        "5 runs: 2 finished already, 1 to resume, 1 to train",
        "left out: lm is not for ce",
        "  c",
        "  d [x]",
        "warning: lxmert with mask: no",
        "warning: e: began otherwise",
        "about 1 h 50 min if run one after another, judging by earlier runs; there are none yet of css, lxmert",
    ]
    told = plan_to_json(plan)
    assert (told["begun"], told["new"], told["wrong"], told["seconds"]) == (["c"], ["d [x]"], plan.wrong, 6600.0)


def test_into_a_file_each_run_that_ends_is_a_line() -> None:
    matrix, shown = watched()
    matrix.plan(Plan(new=(Named("a seed 0"), Named("b seed 0"))))
    matrix.begin(2, 1, None, or_more=True)
    for name, failed in (("a seed 0", False), ("b seed 0", True)):
        matrix.follow(name, 2, [])
        matrix.follow(name, 2, [{"epoch": 1, "loss": 2.0, "val_accuracy": 50.0}])
        matrix.end(name, "told", failed=failed, seconds_left=None if failed else 300.0)
    matrix.stop()
    assert shown.getvalue().splitlines()[3:] == [
        "the time is unknown until the first run has finished",
        "training 1 at a time, or more if there is room, each in a process of its own",
        "[1/2] a seed 0: told (about 5 min left)",
        "[2/2] b seed 0: failed: told",
    ]


def test_however_narrow_a_terminal_names_are_cut_and_numbers_are_not() -> None:
    matrix, shown = watched(width=80)
    matrix.begin(2, 2, 120.0, or_more=False)
    matrix.follow(LONG, 150, [{"epoch": 117, "loss": 12.345, "val_accuracy": 55.5}])
    assert matrix.bar is not None
    matrix.bar.refresh()
    matrix.stop()
    drawn = lines_of(shown)
    assert drawn[0] == "training 2 at a time, each in a process of its own: about 2 min"
    bars = [line for line in drawn[1:] if line]
    assert max(map(len, bars)) <= 80 - len("^C^C ")  # a terminal writes them behind the last one
    (own,) = {line for line in bars if "117" in line}
    assert re.match(r"vqa-cp-v2 .*… +seed 12 .*117/150 loss 12\.345  val 55\.5 0:00:\d\d$", own)
    assert any(re.match(r"all runs .* 0/2 +about 2 min left +0:00:\d\d$", line) for line in bars)


def test_a_bar_goes_with_its_run_and_all_go_at_the_end() -> None:
    matrix, shown = watched(width=100)
    matrix.begin(1, 1, None, or_more=False)
    matrix.follow("a seed 0", 2, [])
    assert matrix.bar is not None
    assert [task.description for task in matrix.bar.tasks] == ["all runs", "a"]
    matrix.end("a seed 0", "told", failed=False, seconds_left=None)
    assert [task.description for task in matrix.bar.tasks] == ["all runs"]
    matrix.stop()
    assert matrix.bar is None
    _, hidden, rest = shown.getvalue().rpartition("\x1b[?25h")  # the cursor is shown again
    assert hidden
    assert "━" not in rest


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.4, "0 s"),
        (89.4, "89 s"),
        (90.0, "2 min"),
        (150.0, "2 min"),
        (5360.0, "89 min"),
        (5400.0, "1 h 30 min"),
        (7170.0, "2 h 00 min"),
    ],
)
def test_times_are_told_as_one_says_them(seconds: float, told: str) -> None:
    assert format_time(seconds) == told
