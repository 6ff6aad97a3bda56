from __future__ import annotations

import os
import signal

import pytest
import torch

from vqabench.errors import InputError
from vqabench.training.device import choose_device, choose_precision, choose_threads
from vqabench.training.interruption import Interruption, Stopped
from vqabench.training.processes import read_local_rank

CPU = torch.device("cpu")


def test_a_gpu_is_known_by_its_number_and_each_process_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [choose_device(name) for name in ("auto", "cuda", "cuda:1")] == [
        torch.device("cuda", number) for number in (0, 0, 1)
    ]
    assert choose_device("auto", local_rank=1) == torch.device("cuda:1")
    with pytest.raises(InputError, match="each of several processes takes a GPU of its own"):
        choose_device("cuda:0", local_rank=1)
    with pytest.raises(InputError, match="this machine has 2 CUDA devices"):
        choose_device("cuda", local_rank=2)


@pytest.mark.parametrize("count", ["2", "many"])
def test_an_environment_that_speaks_of_several_processes_without_torchrun_is_told_of(
    monkeypatch: pytest.MonkeyPatch, count: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", count)
    with pytest.raises(InputError, match=f"WORLD_SIZE is {count}, but RANK, .* is not set: .*torchrun"):
        read_local_rank()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert read_local_rank() is None


def test_bfloat16_is_chosen_where_the_processor_has_instructions_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=has: has)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert choose_precision("auto", CPU) == precision
    assert choose_precision("bfloat16", CPU) == "bfloat16"


def test_one_run_does_not_leave_its_threads_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    try:
        found = []
        for parameters in (1000, 10**7, 1000):
            choose_threads(parameters, CPU, usual=2)
            found.append(torch.get_num_threads())
        assert found == [1, 2, 1]
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        choose_threads(1000, CPU, usual=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_signals_end_the_program_or_are_noted_where_that_is_put_off_and_ctrl_c_twice_ends_it_all_the_same() -> None:
    interruption = Interruption()
    with interruption.watching():
        with pytest.raises(Stopped) as stopped:
            os.kill(os.getpid(), signal.SIGUSR1)  # not SIGHUP, which `nohup pytest` ignores
        assert (stopped.value.signal, stopped.value.exit_code) == ("SIGUSR1", 75)
        with interruption.put_off():
            with interruption.put_off():
                os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            assert interruption.received == "SIGTERM"
            with pytest.raises(KeyboardInterrupt) as ended:
                os.kill(os.getpid(), signal.SIGINT)
            assert not isinstance(ended.value, Stopped)  # nothing may be saved
        with pytest.raises(Stopped):
            interruption.check()


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with Interruption().watching():
            os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
