from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import write_tiny
from vqabench.data.batches.placement import Place, PlacedFeatures, choose_place, format_place
from vqabench.data.catalog.dataset import find_dataset
from vqabench.data.features.store import FeatureStore
from vqabench.data.prepare.prepared import prepare
from vqabench.files.resources import format_bytes, free_device_memory, free_host_memory, left_to_groups

CPU = torch.device("cpu")
ROWS = [torch.tensor([3, 0, 3]), torch.tensor([5]), torch.tensor([1, 2])]


@pytest.fixture
def features(tmp_path: Path) -> FeatureStore:
    dataset = find_dataset("tiny", write_tiny(tmp_path / "own"), tmp_path / "data")
    return prepare(dataset, lambda _: None).features


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("place", ["device", "host", "disk"])
def test_wherever_features_are_kept_a_batch_gets_the_same(
    features: FeatureStore, place: Place, dtype: torch.dtype
) -> None:
    found = list(PlacedFeatures(features, CPU, place, dtype).gather(ROWS))
    assert [len(regions) for regions in found] == [3, 1, 2]
    for rows, regions in zip(ROWS, found, strict=True):
        assert regions.dtype == dtype
        assert torch.equal(regions, torch.from_numpy(features.regions[rows.numpy()]).to(dtype))


def test_batches_in_flight_are_all_that_is_read_ahead_and_threads_end_with_the_last(features: FeatureStore) -> None:
    before = threading.active_count()
    batches = PlacedFeatures(features, CPU).gather([torch.tensor([0])] * 100)
    next(batches)
    assert threading.active_count() > before
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_on_a_cpu_a_large_file_serves_and_a_copy_must_be_asked_for(features: FeatureStore) -> None:
    large = dataclasses.replace(features, regions=np.broadcast_to(np.float16(0), (10_000, 36, 2048)))  # 1.5 GB
    assert choose_place("auto", large, CPU) == "disk"
    assert choose_place("auto", features, CPU) == "host"
    assert choose_place("device", large, CPU) == "host"
    assert "from the disk" in format_place(PlacedFeatures(features, CPU))


@pytest.mark.parametrize(
    ("free", "processes", "place"), [(10**12, 1, "device"), (5 * 10**9, 1, "host"), (5 * 10**9, 10**6, "disk")]
)
def test_on_a_gpu_features_are_kept_where_there_is_room_for_all_that_keep_them(
    features: FeatureStore, monkeypatch: pytest.MonkeyPatch, free: int, processes: int, place: Place
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    large = dataclasses.replace(features, regions=np.broadcast_to(np.float16(0), (10_000, 36, 2048)))  # 1.5 GB
    assert choose_place("auto", large, torch.device("cuda:0"), copies=processes) == place


def test_a_limit_of_the_job_or_of_what_is_around_it_counts_and_files_in_memory_do_not(tmp_path: Path) -> None:
    for folder, limit, used, cached in ((tmp_path / "job", "max", 70, 0), (tmp_path, "100", 70, 20)):
        folder.mkdir(exist_ok=True)
        for name, content in (("max", limit), ("current", used), ("stat", f"anon 1\nfile {cached}\nshmem 1")):
            (folder / f"memory.{name}").write_text(f"{content}\n")
    assert left_to_groups(tmp_path, "job/step") == [50]
    assert left_to_groups(tmp_path / "nothing", "") == []


def test_memory_is_what_the_system_says_and_sizes_are_spelled_as_one_speaks_of_them() -> None:
    total = int(Path("/proc/meminfo").read_text().partition("MemTotal:")[2].split()[0])
    assert 0 < free_host_memory() <= 1024 * total
    assert free_device_memory(CPU) > 0
    assert [format_bytes(n) for n in (12, 3_400, 18e9)] == ["12 bytes", "3 KB", "18.0 GB"]
