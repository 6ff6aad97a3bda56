from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from vqabench_updn import UpDn
from vqabench_updn.dropout import Dropout, draw_dropped
from vqabench_updn.questions import last_state

from vqabench.api import PADDING, Batch, DataSpec
from vqabench.testing import assert_conforms

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "updn_forward.json").read_text())
SIZES = GOLDEN["sizes"]
LAYERS = {
    "attend_region.0": "v_att.v_proj.main.0",
    "attend_question.0": "v_att.q_proj.main.0",
    "attention": "v_att.linear",
    "question_layer.0": "q_net.main.0",
    "region_layer.0": "v_net.main.0",
    "classifier.0": "classifier.main.0",
    "classifier.3": "classifier.main.3",
}


def make_spec(**changes: Any) -> DataSpec:
    answers = SIZES["answers"]
    words = tuple(f"word {number}" for number in range(SIZES["vocabulary"] + 1))
    fields: dict[str, Any] = {
        "answers": tuple(map(str, range(answers))),
        "words": words,
        "question_types": ("how many",),
        "regions": SIZES["regions"],
        "region_width": SIZES["visual"],
        "question_length": 5,
        "answer_counts_TA": torch.ones(1, answers),
        "mean_targets_TA": torch.ones(1, answers) / answers,
        "questions_T": torch.ones(1, dtype=torch.int64),
    }
    return DataSpec(**(fields | changes))


def golden_weights() -> dict[str, Tensor]:
    given = {name: torch.tensor(value) for name, value in GOLDEN["parameters"].items()}
    # The reference pads with the last token, we with the first.
    state = {"embedding.weight": given["w_emb.emb.weight"].roll(1, 0)}
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        state[f"gru.{name}"] = given[f"q_emb.rnn.{name}"]
    for own, reference in LAYERS.items():
        state[f"{own}.bias"] = given[f"{reference}.bias"]
        state[f"{own}.parametrizations.weight.original0"] = given[f"{reference}.weight_g"]
        state[f"{own}.parametrizations.weight.original1"] = given[f"{reference}.weight_v"]
    return state


def golden_batch() -> Batch:
    tokens_BL = (torch.tensor(GOLDEN["question_tokens"]) + 1) % (SIZES["vocabulary"] + 1)
    regions_BRV = torch.tensor(GOLDEN["visual_features"])
    size, regions = regions_BRV.shape[:2]
    return Batch(
        question_ids_B=torch.arange(size),
        question_types_B=torch.zeros(size, dtype=torch.int64),
        tokens_BL=tokens_BL,
        word_mask_BL=tokens_BL != PADDING,
        type_words_BL=torch.zeros_like(tokens_BL, dtype=torch.bool),
        regions_BRV=regions_BRV,
        boxes_BR4=torch.zeros(size, regions, 4),
        region_mask_BR=torch.ones(size, regions, dtype=torch.bool),
    )


def test_a_forward_pass_equals_the_published_reference() -> None:
    model = UpDn(make_spec(), hidden=SIZES["hidden"]).eval()
    model.load_state_dict(golden_weights())
    output = model(golden_batch())
    for ours, name in (
        (output.question_features_BQ, "question_features"),
        (output.attention_BR, "attention"),
        (output.joint_features_BH, "joint"),
        (output.logits_BA, "unmasked_logits"),
    ):
        assert ours is not None
        torch.testing.assert_close(ours, torch.tensor(GOLDEN[name]), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_it_keeps_what_the_api_promises() -> None:
    assert_conforms(UpDn, hidden=32)


def test_sizes_follow_the_features_or_the_option() -> None:
    assert UpDn(make_spec(region_width=2048)).question_width == 1024
    model = UpDn(make_spec(), hidden=12, embedding=20)
    assert (model.gru.input_size, model.gru.hidden_size) == (20, 12)


def test_word_vectors_of_the_data_set_start_the_embedding() -> None:
    vectors = torch.randn(SIZES["vocabulary"] + 1, 50)
    model = UpDn(make_spec(word_vectors=vectors), hidden=6)
    torch.testing.assert_close(model.embedding.weight.detach()[1:], vectors[1:])
    assert model.embedding.weight.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weight_norm_keeps_one_scale_per_layer(dtype: torch.dtype) -> None:
    model = UpDn(make_spec(), hidden=6).to(dtype)
    scales = [p for n, p in model.named_parameters() if n.endswith("original0")]
    assert len(scales) == 7
    assert all(scale.numel() == 1 for scale in scales)


def test_what_is_dropped_is_drawn_with_the_probability_and_anew_each_time() -> None:
    torch.manual_seed(0)
    for probability in (0.2, 0.5, 0.9):
        first, second = (draw_dropped(torch.empty(1000, 1001), probability) for _ in range(2))
        assert first.float().mean().item() == pytest.approx(probability, abs=0.002)
        both = (first & second).float().mean().item()
        assert both == pytest.approx(probability**2, abs=0.003)  # neither rows nor draws depend on each other
        assert (first[:, 1:] & first[:, :-1]).float().mean().item() == pytest.approx(probability**2, abs=0.003)


def test_dropout_keeps_the_mean_and_its_gradient_is_the_mask() -> None:
    torch.manual_seed(0)
    numbers = torch.ones(300, 300, requires_grad=True)
    dropped = Dropout(0.3)(numbers)
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    dropped.sum().backward()
    assert numbers.grad is not None
    assert torch.equal(numbers.grad, dropped.detach())
    assert torch.equal(Dropout(0.3).eval()(numbers), numbers)
    assert not Dropout(1.0)(numbers).any()


def test_gradients_under_dropout_are_those_of_the_formula() -> None:
    """Against w · (mask ∘ f_v(v) ∘ f_q(q)) / (1 - p) written out, with the same mask."""
    model = UpDn(make_spec(), hidden=SIZES["hidden"], attention_dropout=0.4).double().train()
    batch = golden_batch()
    batch = batch.replace(regions_BRV=batch.regions_BRV.double())
    question_BH = torch.randn(len(batch), SIZES["hidden"], dtype=torch.float64)
    weight = dict(model.named_parameters())["attend_region.0.parametrizations.weight.original1"]
    found = []
    for way in ("ours", "formula"):
        torch.manual_seed(1)
        if way == "ours":
            attention_BR = model.attend(batch, question_BH)
        else:
            joint_BRH = model.attend_region(batch.regions_BRV) * model.attend_question(question_BH)[:, None]
            mask_BRH = ~draw_dropped(joint_BRH.flatten(0, 1), 0.4).view_as(joint_BRH)
            attention_BR = model.attention(joint_BRH * mask_BRH / 0.6).squeeze(2).softmax(1)
        (gradient,) = torch.autograd.grad(attention_BR.square().sum(), weight)
        found.append((attention_BR, gradient))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("lengths", [[5, 1, 3, 0], [5, 5], [2, 2, 2], [1, 4, 2, 5, 0, 3] * 40])
def test_the_state_behind_padding_is_computed_once_and_is_the_same(lengths: list[int]) -> None:
    model = UpDn(make_spec(), hidden=7, embedding=6).double()
    tokens_BL = torch.randint(1, SIZES["vocabulary"], (len(lengths), 5))
    padded_B = 5 - torch.tensor(lengths)
    tokens_BL[torch.arange(5) < padded_B[:, None]] = PADDING
    words_BLE = model.embedding(tokens_BL)
    packed = last_state(model.gru, words_BLE, model.embedding.weight[PADDING].detach(), padded_B)
    read = model.gru(words_BLE)[1][0]
    torch.testing.assert_close(packed, read)
    trained = [*model.gru.parameters(), model.embedding.weight]
    gradients = [torch.autograd.grad(state.square().sum(), trained, retain_graph=True) for state in (packed, read)]
    torch.testing.assert_close(*gradients)
