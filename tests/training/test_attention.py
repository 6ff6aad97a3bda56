from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.runs import places_in, run
from vqabench.data.batches.placement import PlacedFeatures
from vqabench.data.prepare.prepared import prepare
from vqabench.errors import InputError
from vqabench.evaluation.predict import load_split
from vqabench.events import ignore
from vqabench.training.attention import attend
from vqabench.training.model import load_model


def test_attention_is_that_of_the_whole_split_at_these_questions(tmp_path: Path) -> None:
    paths = places_in(tmp_path)
    done = run(paths, loss="mask+rescale", epochs=1, finetune_epochs=1, precision="float32")
    dataset = paths.dataset("tiny")
    prepared = prepare(dataset, lambda _: None)
    found = attend(done, dataset, prepared, "test", [4, 1], ignore)
    model = load_model(done, prepared, ignore).eval()
    features = PlacedFeatures(prepared.features, torch.device("cpu"))
    data = load_split(model, prepared, dataset, "test", features)
    with torch.inference_mode():
        whole_BR = model(data.batch(torch.arange(len(data)), with_targets=False)).attention_BR
    assert found is not None
    assert [len(own) for own in found] == [2, 3]  # real regions of images 4 and 1
    for own, row in zip(found, (4, 1), strict=True):
        assert sum(own) == pytest.approx(1)
        assert own == pytest.approx(whole_BR[row, : len(own)].tolist(), rel=1e-5)


def test_a_backbone_without_attention_has_none(tmp_path: Path) -> None:
    paths = places_in(tmp_path)
    done = run(paths, backbone="prior", settings={})
    dataset = paths.dataset("tiny")
    assert attend(done, dataset, prepare(dataset, lambda _: None), "test", [0], ignore) is None


def test_weights_that_are_gone_are_told(tmp_path: Path) -> None:
    paths = places_in(tmp_path)
    done = run(paths, epochs=1)
    done.weights_file.unlink()
    dataset = paths.dataset("tiny")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        attend(done, dataset, prepare(dataset, lambda _: None), "test", [0], ignore)
