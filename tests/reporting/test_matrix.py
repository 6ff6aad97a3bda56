"""The plan of a matrix."""

from __future__ import annotations

from dataclasses import dataclass, field

from vqabench.events import Warn
from vqabench.reporting.matrix import describe_plan, plan_to_json


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


def test_a_plan_lists_what_is_done_continues_begins_is_left_out_and_cannot_be_trained() -> None:
    plan = Plan(
        done=(Named("a"), Named("b")),
        begun=(Named("c"),),
        new=(Named("d [x]"),),
        wrong={"e": "began otherwise"},
        undefined=("lm is not for ce",),
        warnings=("lxmert with mask: no",),
        estimate=Estimate(6600.0, ("css", "lxmert")),
    )
    assert describe_plan(plan) == [
        "5 runs: 2 finished already, 1 to resume, 1 to train",
        "left out: lm is not for ce",
        "  c",
        "  d [x]",
        Warn("lxmert with mask: no"),
        Warn("e: began otherwise"),
        "about 1 h 50 min if run one after another, judging by earlier runs; there are none yet of css, lxmert",
    ]
    document = plan_to_json(plan)
    assert (document["begun"], document["new"], document["wrong"], document["seconds"]) == (
        ["c"],
        ["d [x]"],
        plan.wrong,
        6600.0,
    )


def test_without_earlier_runs_the_time_is_unknown() -> None:
    assert describe_plan(Plan(new=(Named("a"),)))[-1] == "the time is unknown until the first run has finished"
