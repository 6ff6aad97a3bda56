from __future__ import annotations

import hashlib
import inspect
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import BertTokenizer
from vqabench_lxmert.pieces import SPECIAL, WordPieces, learn_vocabulary, read_tensor, read_vocabulary

PIECES = (*SPECIAL, "un", "##believ", "##able", "what", "is", "?", "t", "-", "shirt")
VOCABULARY = {piece: number for number, piece in enumerate(PIECES)}
WORDS = ("what", "color", "is", "the", "sheep", "'s", "wool", "t-shirt", "colors", "woolly")


def test_a_question_is_framed_cut_at_pieces_and_padded_behind() -> None:
    encoded = WordPieces(VOCABULARY, 20).encode(["What is UNBELIEVABLE?", "Zebra t-shirt"])
    expected = [
        ["[CLS]", "what", "is", "un", "##believ", "##able", "?", "[SEP]"],
        ["[CLS]", "[UNK]", "t", "-", "shirt", "[SEP]", "[PAD]", "[PAD]"],
    ]
    assert encoded.tolist() == [[VOCABULARY[piece] for piece in row] for row in expected]
    assert encoded.dtype == torch.int64


def test_a_long_question_is_cut_in_front_of_its_end() -> None:
    (row,) = WordPieces(VOCABULARY, 4).encode(["what is unbelievable?"]).tolist()
    assert [PIECES[number] for number in row] == ["[CLS]", "what", "is", "[SEP]"]


def test_no_questions_make_no_rows() -> None:
    assert len(WordPieces(VOCABULARY, 4).encode([])) == 0


def test_pieces_are_those_of_the_transformers_library(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES), encoding="utf-8")
    theirs = BertTokenizer.from_pretrained(tmp_path)
    ours = WordPieces(read_vocabulary(tmp_path), 20)
    for question in (
        "What is Ünbelievable ?",
        "  is the t-shirt\tun-able?! ",
        "what's 数 un…",
        "",
        "is\u200bis x" * 9,
    ):
        given = theirs(question, truncation=True, max_length=20).input_ids
        assert ours.encode([question]).tolist() == [given], question


def test_every_word_of_training_becomes_a_piece_and_others_are_put_together() -> None:
    learnt = learn_vocabulary(WORDS, 1000)
    assert learnt["[PAD]"] == 0
    assert {"what", "color", "sheep", "woolly", "?", ",", "'", "shirt"} <= learnt.keys()
    pieces = WordPieces(learnt, 20)
    names = {number: piece for piece, number in learnt.items()}
    (row,) = pieces.encode(["What color, sheepshirt €?"]).tolist()
    spelled = [names[number] for number in row]
    assert spelled[:5] == ["[CLS]", "what", "color", ",", "sheep"]
    assert "".join(spelled[5:-3]).replace("##", "") == "shirt"
    assert spelled[-3:] == ["[UNK]", "?", "[SEP]"]


def test_a_small_vocabulary_puts_words_together_too() -> None:
    smallest = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"ab?,", "##a", "##b", "##?", "##,"}
    assert set(learn_vocabulary(["aab", "abab"], len(smallest))) == smallest
    learnt = learn_vocabulary(["aab", "abab"], len(smallest) + 1)
    assert len(learnt) == len(smallest) + 1
    with pytest.raises(ValueError, match=r"vocabulary must be at least 13, .* not 12"):
        learn_vocabulary(["aab", "abab"], 12)


def random_words() -> list[str]:
    draw = random.Random(5)
    return ["".join(draw.choices("abcdefghij", k=draw.randint(1, 9))) for _ in range(400)]


def digest() -> str:
    return hashlib.sha256(repr(sorted(learn_vocabulary(random_words(), 300).items())).encode()).hexdigest()


def test_the_same_words_make_the_same_vocabulary_again_and_again() -> None:
    """The library by itself numbers and merges in another order each time."""
    assert len({digest() for _ in range(6)}) == 1
    assert learn_vocabulary(random_words(), 300) != learn_vocabulary(random_words()[1:], 300)


@pytest.mark.slow
def test_another_process_learns_the_same_vocabulary() -> None:
    code = f"{inspect.getsource(random_words)}\n{inspect.getsource(digest)}\nprint(digest())"
    imports = "import hashlib\nimport random\nfrom vqabench_lxmert.pieces import learn_vocabulary\n"
    command = [sys.executable, "-c", imports + code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == digest()


def test_a_vocabulary_is_read_from_either_of_its_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no vocab\.txt and no tokenizer\.json"):
        read_vocabulary(tmp_path)
    described = {"model": {"type": "WordPiece", "vocab": VOCABULARY}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    assert read_vocabulary(tmp_path) == VOCABULARY
    (tmp_path / "vocab.txt").write_text("\n".join(reversed(PIECES)) + "\n", encoding="utf-8")
    assert list(read_vocabulary(tmp_path)) == list(reversed(PIECES))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model": {"type": "BPE", "vocab": {}}}', "of the kind BPE"),
        ('{"model": []}', "no vocabulary"),
        ("{", "no vocabulary"),
    ],
)
def test_a_file_without_word_pieces_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_vocabulary(tmp_path)


def test_a_vocabulary_must_hold_the_pieces_of_the_frame() -> None:
    with pytest.raises(ValueError, match=r"lacks \[UNK\], \[SEP\]"):
        WordPieces({"[PAD]": 0, "[CLS]": 1}, 20)


def test_a_vocabulary_is_read_from_the_bytes_that_it_was_kept_in() -> None:
    learnt = learn_vocabulary(["déjà", "vu"], 30)
    assert read_tensor(WordPieces(learnt, 9).to_tensor()) == learnt


def test_a_published_vocabulary_that_is_none_says_why(tmp_path: Path) -> None:
    for content, message in ((b"[PAD]\n\xff", "not UTF-8 text"), (b"[PAD]\na\nb\na", "holds a twice")):
        (tmp_path / "vocab.txt").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_vocabulary(tmp_path)
