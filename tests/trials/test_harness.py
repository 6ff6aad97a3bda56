"""The trials' own tools: a sound plugin trains, a broken one is found out."""

from __future__ import annotations

import pytest

from tests.outcomes import assert_done, assert_refused
from tests.trials.conftest import Trial

pytestmark = pytest.mark.slow


def test_a_sound_plugin_trains_and_leaves_one_run(trial: Trial) -> None:
    trial.plugin("sound")
    assert_done(trial.train("sound"))
    assert [run.name for run in trial.runs("sound")] == ["seed-0"]


def test_a_plugin_that_raises_fails_its_run(trial: Trial) -> None:
    trial.plugin("raises", "raise ValueError('out of range')")
    assert_refused(trial.train("raises"), "out of range", code=1)
