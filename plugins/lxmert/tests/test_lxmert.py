from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LxmertConfig, LxmertForQuestionAnswering
from vqabench_lxmert import Lxmert
from vqabench_lxmert.backbone import initial_deviation

from vqabench.api import Batch, DataSpec, Output
from vqabench.testing import assert_conforms

SIZES: dict[str, Any] = {"hidden": 12, "heads": 3, "language_layers": 2, "object_layers": 1, "cross_layers": 2}
QUESTIONS = ("How many sheep?", "What color is the sheep's wool?", "what color")
SPEC = DataSpec(
    answers=("1", "2", "red", "blue"),
    words=("<padding>", "<unknown>", "how", "many", "sheep", "what", "color", "is", "the", "wool", "'s"),
    question_types=("how many", "what color is the"),
    regions=5,
    region_width=7,
    question_length=6,
    answer_counts_TA=torch.ones(2, 4),
    mean_targets_TA=torch.ones(2, 4) / 4,
    questions_T=torch.ones(2, dtype=torch.int64),
)


def make_model(**options: Any) -> Lxmert:
    torch.manual_seed(0)
    return Lxmert(SPEC, **(SIZES | options))


def make_batch(model: Lxmert, questions: tuple[str, ...] = QUESTIONS, regions: int = 5) -> Batch:
    """Ask about images of random regions, the last one of which is not there."""
    draw = torch.Generator().manual_seed(1)
    size = len(questions)
    mask_BR = torch.ones(size, regions, dtype=torch.bool)
    mask_BR[:, -1] = False
    corners = torch.rand(size, regions, 2, 2, generator=draw).sort(dim=2).values
    return Batch(
        question_ids_B=torch.arange(size),
        question_types_B=torch.arange(size).clamp(max=1),
        tokens_BL=torch.zeros(size, 6, dtype=torch.int64),
        word_mask_BL=torch.zeros(size, 6, dtype=torch.bool),
        type_words_BL=torch.zeros(size, 6, dtype=torch.bool),
        regions_BRV=torch.randn(size, regions, 7, generator=draw) * mask_BR[:, :, None],
        boxes_BR4=corners.reshape(size, regions, 4) * mask_BR[:, :, None],
        region_mask_BR=mask_BR,
        extras=model.prepare_questions(questions),
    )


def attention_of(output: Output) -> Tensor:
    assert output.attention_BR is not None
    return output.attention_BR


@pytest.mark.slow
def test_it_keeps_what_the_api_promises() -> None:
    assert_conforms(Lxmert, hidden=32, heads=2, language_layers=1, object_layers=1, cross_layers=1)


def test_a_question_is_answered_alone_as_beside_longer_ones() -> None:
    model = make_model().eval()
    batch = make_batch(model)
    together = model(batch)
    for row, question in enumerate(QUESTIONS):
        alone = batch.replace(
            regions_BRV=batch.regions_BRV[row : row + 1],
            boxes_BR4=batch.boxes_BR4[row : row + 1],
            region_mask_BR=batch.region_mask_BR[row : row + 1],
            extras=model.prepare_questions([question]),
        )
        torch.testing.assert_close(model(alone).logits_BA[0], together.logits_BA[row])


def test_attention_is_what_it_is_before_dropout() -> None:
    model = make_model(dropout=0.5).train()
    batch = make_batch(model)
    attention_BR = attention_of(model(batch))
    torch.testing.assert_close(attention_BR.sum(1), torch.ones(3))
    assert (attention_BR[~batch.region_mask_BR] == 0).all()


def test_logits_are_those_of_the_library_s_own_model_for_question_answering() -> None:
    model = make_model().eval()
    batch = make_batch(model)
    config = LxmertConfig(**(model.transformer.config.to_dict() | {"num_qa_labels": 4}))
    theirs: Any = LxmertForQuestionAnswering(config)
    theirs.eval()
    theirs.lxmert.load_state_dict(model.transformer.state_dict())
    theirs.answer_head.logit_fc.load_state_dict(model.head.state_dict())
    given = theirs(
        input_ids=batch.extras["pieces"],
        attention_mask=(batch.extras["pieces"] != 0).long(),
        visual_feats=batch.regions_BRV,
        visual_pos=batch.boxes_BR4,
        visual_attention_mask=batch.region_mask_BR.long(),
        output_attentions=True,
    )
    output = model(batch)
    torch.testing.assert_close(output.logits_BA, given.question_answering_score)
    first_BR = given.cross_encoder_attentions[-1][:, :, 0].mean(1)
    torch.testing.assert_close(attention_of(output), first_BR)


def test_weights_start_as_large_as_the_published_ones_and_larger_in_narrower_models() -> None:
    assert initial_deviation(768) == pytest.approx(0.02)
    model = make_model(hidden=48)
    weights = dict(model.named_parameters())
    for name in ("transformer.encoder.layer.0.attention.self.query.weight", "head.0.weight"):
        assert float(weights[name].detach().std()) == pytest.approx(0.08, rel=0.1)


def test_question_features_do_not_see_the_image_and_the_answer_sees_regions_and_boxes() -> None:
    model = make_model().eval()
    batch = make_batch(model)
    before = model(batch)
    for changed in (
        batch.replace(regions_BRV=batch.regions_BRV.roll(1, 0)),
        batch.replace(boxes_BR4=batch.boxes_BR4.roll(1, 0)),
    ):
        after = model(changed)
        assert torch.equal(after.question_features_BQ, before.question_features_BQ)
        assert not torch.allclose(after.joint_features_BH, before.joint_features_BH)
        assert not torch.allclose(after.logits_BA, before.logits_BA)
    assert before.question_features_BQ.shape == (3, model.question_width)
    assert before.joint_features_BH.shape == (3, model.joint_width)
    assert not torch.allclose(before.question_features_BQ[0], before.question_features_BQ[1])


def test_words_have_a_gradient_when_the_model_is_tested() -> None:
    model = make_model().eval()
    batch = make_batch(model)
    output = model(batch)
    (gradient_BLE,) = torch.autograd.grad(output.logits_BA[:, 0].sum(), output.word_embeddings_BLE)
    own_BL, _ = model.word_masks(batch)
    assert gradient_BLE.shape == (*batch.extras["pieces"].shape, 12)
    assert (gradient_BLE[own_BL].abs().sum(1) > 0).all()
    assert (gradient_BLE[batch.extras["pieces"] == 0] == 0).all()


def test_every_parameter_gets_a_gradient_but_those_behind_the_last_look_of_the_image() -> None:
    model = make_model(dropout=0.0)
    model(make_batch(model)).logits_BA.square().sum().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without
    assert all(name.startswith("transformer.encoder.x_layers.1.visn_") for name in without)


def test_pieces_of_the_type_are_told_from_the_others() -> None:
    model = make_model()
    batch = make_batch(model)
    own_BL, type_BL = model.word_masks(batch)
    # [CLS] how many sheep ? [SEP]; [CLS] what color is the sheep ' s wool ? [SEP]; [CLS] what color [SEP]
    assert own_BL.sum(1).tolist() == [3, 8, 2]  # a question mark is no word
    assert not own_BL[:, 0].any()
    assert type_BL.sum(1).tolist() == [2, 4, 0]  # the last does not begin with all of its type
    assert type_BL[0, 1:3].all()
    assert type_BL[1, 1:5].all()


def test_type_pieces_are_found_where_all_questions_are_shorter_than_the_longest_type() -> None:
    model = make_model()
    batch = make_batch(model, ("how many", "what color"))
    assert model.word_masks(batch)[1].sum(1).tolist() == [2, 0]


def test_a_hidden_piece_becomes_the_unknown_one_and_changes_the_answer() -> None:
    model = make_model().eval()
    batch = make_batch(model)
    hidden_BL = torch.zeros_like(batch.extras["pieces"], dtype=torch.bool)
    hidden_BL[0, 3] = True
    changed = model.hide_words(batch, hidden_BL)
    assert changed.extras["pieces"][0, 3] == model.pieces.unknown
    assert torch.equal(changed.extras["pieces"][~hidden_BL], batch.extras["pieces"][~hidden_BL])
    before, after = model(batch).logits_BA, model(changed).logits_BA
    assert not torch.allclose(after[0], before[0])
    torch.testing.assert_close(after[1:], before[1:])


@pytest.mark.parametrize("size", [60, 70])
def test_weights_bring_the_word_pieces_along_that_they_were_trained_with(size: int) -> None:
    renamed = tuple(word.replace("sheep", "peehs") for word in SPEC.words)
    other = Lxmert(dataclasses.replace(SPEC, words=renamed), vocabulary=size, **SIZES).eval()
    model = make_model(vocabulary=60).eval()
    assert not torch.equal(*(one.prepare_questions(QUESTIONS)["pieces"] for one in (model, other)))
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(model(make_batch(model)).logits_BA, other(make_batch(other)).logits_BA)


def test_sizes_default_to_the_published_ones() -> None:
    defaults = {name: one.default for name, one in inspect.signature(Lxmert).parameters.items()}
    config = LxmertConfig()
    assert (defaults["hidden"], defaults["heads"]) == (config.hidden_size, config.num_attention_heads)
    layers = (defaults["language_layers"], defaults["object_layers"], defaults["cross_layers"])
    assert layers == (config.l_layers, config.r_layers, config.x_layers)
    assert defaults["dropout"] == config.hidden_dropout_prob == config.attention_probs_dropout_prob
    model = make_model(hidden=24, heads=4, object_layers=3, cross_layers=1, pieces=9)
    sizes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for part, count in (("layer", 2), ("r_layers", 3)):
        names = [f"transformer.encoder.{part}.{number}.output.dense.bias" for number in range(9)]
        assert sum(name in sizes for name in names) == count
    assert "transformer.encoder.x_layers.0.lang_output.dense.bias" in sizes
    assert "transformer.encoder.x_layers.1.lang_output.dense.bias" not in sizes
    assert sizes["transformer.encoder.layer.0.intermediate.dense.weight"] == (96, 24)
    assert sizes["transformer.embeddings.position_embeddings.weight"] == (9, 24)
    assert (sizes["head.0.weight"], sizes["head.3.weight"]) == ((48, 24), (4, 48))
    assert model.transformer.config.num_attention_heads == 4
    assert (model.question_width, model.joint_width) == (24, 24)


def test_the_recipe_is_the_published_fine_tuning() -> None:
    recipe = Lxmert.recipe
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer, recipe.lr) == (4, 32, "bert-adam", 5e-5)
    assert (recipe.schedule, recipe.warmup, recipe.weight_decay, recipe.clip) == ("linear", 0.1, 0.01, 5.0)


def test_dropout_falls_where_the_option_says() -> None:
    batch = make_batch(make_model())
    noisy = make_model(dropout=0.3).train()
    assert not torch.equal(noisy(batch).logits_BA, noisy(batch).logits_BA)
    still = make_model(dropout=0.0).train()
    assert torch.equal(still(batch).logits_BA, still(batch).logits_BA)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, "hidden must be at least 1, not 0"),
        ({"heads": 5}, "hidden must be a multiple of heads, not 12 with 5 heads"),
        ({"language_layers": 0}, "language_layers must be at least 1"),
        ({"object_layers": 0}, "object_layers must be at least 1"),
        ({"cross_layers": -1}, "cross_layers must be at least 1"),
        ({"pieces": 2}, "pieces must be at least 3"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"vocabulary": 7}, "vocabulary must be at least"),
        ({"weights": "somewhere", "vocabulary": 99}, "vocabulary cannot be set together with weights"),
        ({"weights": ""}, "weights must name a folder or a repository"),
    ],
)
def test_an_option_out_of_range_says_what_is_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model(**options)
