from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LxmertConfig, LxmertForPreTraining
from vqabench_lxmert import Lxmert
from vqabench_lxmert.backbone import initial_deviation
from vqabench_lxmert.pieces import SPECIAL
from vqabench_lxmert.published import find_folder, read_published

from vqabench.api import Batch, DataSpec

PIECES = (*SPECIAL, "how", "many", "sheep", "what", "color", "is", "the", "?")
ANSWERS = ("no", "red", "2", "blue", "white")
SIZES: dict[str, Any] = {"hidden": 12, "heads": 3, "language_layers": 2, "object_layers": 1, "cross_layers": 2}
SPEC = DataSpec(
    answers=("1", "2", "red", "green"),
    words=("<padding>", "<unknown>", "how", "many", "sheep"),
    question_types=("how many",),
    regions=3,
    region_width=8,
    question_length=6,
    answer_counts_TA=torch.ones(1, 4),
    mean_targets_TA=torch.ones(1, 4) / 4,
    questions_T=torch.ones(1, dtype=torch.int64),
)


def make_published() -> LxmertForPreTraining:
    """Make up the weights of a pre-training, with all the heads that the published ones have."""
    torch.manual_seed(3)
    config = LxmertConfig(
        vocab_size=len(PIECES),
        hidden_size=12,
        intermediate_size=48,
        num_attention_heads=3,
        l_layers=2,
        r_layers=1,
        x_layers=2,
        visual_feat_dim=SPEC.region_width,
        num_qa_labels=len(ANSWERS),
        initializer_range=0.3,
    )
    model = LxmertForPreTraining(config)
    nn.Module.eval(model)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "published"
    make_published().save_pretrained(made)
    (made / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    (made / "answers.json").write_text(json.dumps(ANSWERS))
    return made


def make_batch(model: Lxmert) -> Batch:
    draw = torch.Generator().manual_seed(1)
    return Batch(
        question_ids_B=torch.arange(2),
        question_types_B=torch.zeros(2, dtype=torch.int64),
        tokens_BL=torch.zeros(2, 6, dtype=torch.int64),
        word_mask_BL=torch.zeros(2, 6, dtype=torch.bool),
        type_words_BL=torch.zeros(2, 6, dtype=torch.bool),
        regions_BRV=torch.randn(2, 3, SPEC.region_width, generator=draw),
        boxes_BR4=torch.rand(2, 3, 4, generator=draw),
        region_mask_BR=torch.ones(2, 3, dtype=torch.bool),
        extras=model.prepare_questions(["How many sheep?", "what color is the sheep?"]),
    )


def start(folder: Path, **options: Any) -> Lxmert:
    model = Lxmert(SPEC, weights=str(folder), **(SIZES | options)).eval()
    model.start()
    return model


def answer(folder: Path, **options: Any) -> Tensor:
    model = start(folder, **options)
    logits_BA: Tensor = model(make_batch(model)).logits_BA
    return logits_BA


def expected_logits(batch: Batch) -> Tensor:
    """Return what the published model itself answers: [B, len(ANSWERS)]."""
    given: Tensor = make_published()(
        input_ids=batch.extras["pieces"],
        attention_mask=(batch.extras["pieces"] != 0).long(),
        visual_feats=batch.regions_BRV,
        visual_pos=batch.boxes_BR4,
    ).question_answering_score
    return given


def save_original(folder: Path, prefix: str) -> None:
    """Write the state under the names of the original implementation, in a pickle, as it was published."""
    state = {
        prefix + key.replace("lxmert.", "bert."): tensor
        for key, tensor in load_file(folder / "model.safetensors").items()
    }
    torch.save(state, folder / "model_LXRT.pth")
    (folder / "model.safetensors").unlink()
    (folder / "config.json").unlink()


def save_two_originals(folder: Path) -> None:
    save_original(folder, "")
    shutil.copy(folder / "model_LXRT.pth", folder / "b_LXRT.pth")


def save_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def save_in_shards(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    for number in range(2):
        part = {key: state[key] for key in sorted(state)[number::2]}
        save_file(part, folder / f"model-{number + 1:05}-of-00002.safetensors")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: None,
        save_pickle,
        save_in_shards,
        lambda folder: save_original(folder, ""),
        lambda folder: save_original(folder, "module."),
    ],
    ids=["safetensors", "pickle", "shards", "original", "original from several GPUs"],
)
def test_published_weights_answer_as_their_own_model_does(folder: Path, change: Callable[[Path], None]) -> None:
    change(folder)
    model = start(folder)
    batch = make_batch(model)
    logits_BA, theirs_BA = model(batch).logits_BA, expected_logits(batch)
    torch.testing.assert_close(logits_BA[:, [1, 2]], theirs_BA[:, [2, 1]])  # "2" and "red", which both know
    assert (logits_BA[:, [0, 3]] == 0).all()
    assert theirs_BA.std() > 0.1
    assert "the answer head knows 2 of the 4 answers" in model.notes[0]
    assert "17 of their parameters are not used (cls." in model.notes[0]
    assert "pre-trained on VQA v2" in model.brands[0]


@pytest.mark.parametrize(
    ("name", "content"),
    [("all_ans.json", [{"ans": one, "dsets": ["vqa"]} for one in ANSWERS]), ("trainval_label2ans.json", ANSWERS)],
)
def test_answers_are_read_in_the_forms_that_they_are_published_in(folder: Path, name: str, content: Any) -> None:
    logits_BA = answer(folder)
    (folder / "answers.json").unlink()
    (folder / name).write_text(json.dumps(content))
    assert torch.equal(answer(folder), logits_BA)


def test_of_several_lists_of_answers_the_one_that_fits_the_head_counts(folder: Path) -> None:
    (folder / "answers.json").rename(folder / "all_ans.json")
    (folder / "trainval_label2ans.json").write_text('["yes", "no", "maybe"]')
    assert "knows 2 of the 4 answers" in start(folder).notes[0]


def test_what_it_started_from_is_told_by_content_not_by_name_alone(folder: Path) -> None:
    before = start(folder).brands
    assert start(folder).brands == before
    change_state(folder, lambda state: state["lxmert.pooler.dense.bias"].add_(1))
    assert start(folder).brands != before


def test_a_model_that_is_not_started_asks_for_no_weights(tmp_path: Path) -> None:
    model = Lxmert(SPEC, weights=str(tmp_path / "moved"), **SIZES)
    assert (model.notes, model.brands) == ((), ())
    with pytest.raises(ValueError, match="there is no folder"):
        model.start()


def test_without_a_list_of_answers_the_last_layer_alone_starts_at_random(folder: Path) -> None:
    (folder / "answers.json").unlink()
    model = start(folder)
    given = make_published().answer_head.logit_fc.state_dict()
    assert torch.equal(model.head.state_dict()["0.weight"], given["0.weight"])
    assert torch.equal(model.head.state_dict()["2.bias"], given["2.bias"])
    started = initial_deviation(SIZES["hidden"])
    assert float(model.head.state_dict()["3.weight"].std()) == pytest.approx(started, rel=0.3)
    assert "last layer starts at random: they hold no answers.json or" in model.notes[0]


def test_weights_without_any_head_are_enough(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    bare = {key.removeprefix("lxmert."): one for key, one in state.items() if key.startswith("lxmert.")}
    save_file(bare, folder / "model.safetensors")
    model = start(folder)
    assert model.notes[0].endswith("the answer head starts at random: they hold none")
    assert torch.equal(model.transformer.pooler.dense.weight, bare["pooler.dense.weight"])


def test_positions_that_no_question_reaches_are_left_out(folder: Path) -> None:
    model = start(folder, pieces=5)
    given = make_published().lxmert.embeddings.position_embeddings.weight
    assert torch.equal(model.transformer.embeddings.position_embeddings.weight, given[:5])
    with pytest.raises(ValueError, match="have other sizes: --set pieces=512"):
        answer(folder, pieces=513)


def change_state(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


POOLER, LAYER = "lxmert.pooler.dense.weight", "lxmert.encoder.r_layers.{}.output.dense.bias"
MISTAKES: dict[str, tuple[Callable[[Path], object], dict[str, Any], str]] = {
    "sizes": (
        lambda folder: None,
        {"heads": 4, "cross_layers": 1},
        r"have other sizes: --set heads=3 --set cross_layers=2$",
    ),
    "sizes without config.json": (
        lambda folder: (folder / "config.json").unlink(),
        {"hidden": 24},
        r"they have other sizes: 147 \(.*\[12\], not \[24\], .* and 144 more\)$",
    ),
    "too few layers": (
        lambda folder: (folder / "config.json").unlink(),
        {"object_layers": 2},
        r"they lack 16 \(encoder\.r_layers\.1\.[^;]* and 13 more\)$",
    ),
    "too many layers": (
        lambda folder: (folder / "config.json").unlink(),
        {"language_layers": 1},
        r"they hold parameters that this model lacks: 16 \(encoder\.layer\.1\.",
    ),
    "one missing": (
        lambda folder: change_state(folder, lambda state: state.pop(POOLER)),
        {},
        r"they lack 1 \(pooler\.dense\.weight\)$",
    ),
    "one of another size": (
        lambda folder: change_state(folder, lambda state: state.update({POOLER: torch.zeros(2, 2)})),
        {},
        r"other sizes: 1 \(pooler\.dense\.weight \[2, 2\], not \[12, 12\]\)$",
    ),
    "head of another size": (
        lambda folder: change_state(
            folder, lambda state: state.update({"answer_head.logit_fc.2.bias": torch.zeros(3)})
        ),
        {},
        r"do not fit the answer head: 2\.bias \[3\], not \[24\]$",
    ),
    "half a head": (
        lambda folder: change_state(folder, lambda state: state.pop("answer_head.logit_fc.3.bias")),
        {},
        r"do not fit the answer head: 3\.bias$",
    ),
    "other answers": (
        lambda folder: (folder / "answers.json").write_text('["yes"]'),
        {},
        r"has 5 answers, but answers.json lists 1",
    ),
    "no answers": (lambda folder: (folder / "answers.json").write_text("[1]"), {}, "is not a list of answers"),
    "answers in a table": (lambda folder: (folder / "answers.json").write_text("{}"), {}, "must hold a list"),
    "damaged config": (lambda folder: (folder / "config.json").write_text("{"), {}, r"config\.json is damaged"),
    "damaged weights": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"no"),
        {},
        r"model\.safetensors is damaged",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), {}, "it holds none"),
    "several weights": (
        save_two_originals,
        {},
        r"it holds several \(b_LXRT\.pth, model_LXRT\.pth\)",
    ),
    "no vocabulary": (lambda folder: (folder / "vocab.txt").unlink(), {}, r"holds no vocab\.txt"),
    "another vocabulary": (
        lambda folder: (folder / "vocab.txt").write_text("\n".join([*PIECES, "more"])),
        {},
        r"word_embeddings\.weight \[13, 12\], not \[14, 12\]",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_weights_that_do_not_fit_are_refused_in_one_line(folder: Path, mistake: str) -> None:
    change, options, message = MISTAKES[mistake]
    change(folder)
    with pytest.raises(ValueError, match=message) as raised:
        answer(folder, **options)
    assert "\n" not in str(raised.value)


def test_features_of_another_width_are_named(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"visual_feat_dim": 2048}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="need regions of width 2048, but the data set's have 8"):
        answer(folder)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


def test_code_in_a_pickle_is_never_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Bomb()}))
    with pytest.raises(ValueError, match="damaged, or holds more than tensors"):
        answer(folder)
    torch.save({"a": Bomb()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="damaged, or holds more than tensors"):
        answer(folder)
    torch.save([1], folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="does not contain a dictionary of tensors"):
        answer(folder)
    assert not (tmp_path / "exploded").exists()


def test_a_name_that_cannot_be_a_repository_is_looked_for_on_disk_alone(tmp_path: Path) -> None:
    for name in (str(tmp_path / "none"), "./none", "a/b/c"):
        with pytest.raises(ValueError, match=f"there is no folder {name}"):
            find_folder(name)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file; name the folder"):
        find_folder(str(tmp_path / "file"))


def test_half_precision_weights_are_widened(folder: Path) -> None:
    state = {key: tensor.half() for key, tensor in load_file(folder / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors")
    assert {one.dtype for one in read_published(str(folder)).transformer.values()} == {torch.float32}
