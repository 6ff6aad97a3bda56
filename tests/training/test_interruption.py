from __future__ import annotations

import os
import signal

import pytest

from vqabench.training.interruption import GRACE, SAVING, Interruption


@pytest.mark.parametrize("first", ["signal", "saving"])
def test_saving_may_take_its_time_whenever_the_signal_comes(first: str) -> None:
    interruption = Interruption()
    with interruption.watching(), interruption.put_off():
        if first == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
            assert interruption._timer is not None
            assert interruption._timer.interval == GRACE
        with interruption.saving():
            if first == "saving":
                os.kill(os.getpid(), signal.SIGTERM)
            assert interruption._timer is not None
            assert interruption._timer.interval == SAVING
    assert interruption.received == "SIGTERM"
