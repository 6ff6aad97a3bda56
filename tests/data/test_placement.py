from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from tests.tiny import write_tiny
from vqabench.data.dataset import find_dataset
from vqabench.data.features import FeatureStore
from vqabench.data.memory import free_device_memory, free_host_memory, spell_bytes
from vqabench.data.placement import Place, PlacedFeatures, Room, choose_place, spell_place
from vqabench.data.prepared import prepare

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


def test_on_a_cpu_the_mapped_file_serves_and_a_copy_must_be_asked_for(features: FeatureStore) -> None:
    assert choose_place("auto", features, Room(CPU)) == "disk"
    assert choose_place("device", features, Room(CPU)) == "host"
    assert "mapped file" in spell_place(PlacedFeatures(features, CPU))


def test_memory_is_what_the_system_says_and_sizes_are_spelled_as_one_speaks_of_them() -> None:
    total = int(Path("/proc/meminfo").read_text().partition("MemTotal:")[2].split()[0])
    assert 0 < free_host_memory() <= 1024 * total
    assert free_device_memory(CPU) > 0
    assert [spell_bytes(n) for n in (12, 3_400, 18e9)] == ["12 bytes", "3 KB", "18.0 GB"]
