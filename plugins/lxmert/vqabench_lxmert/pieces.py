"""Cut questions into word pieces, with a published vocabulary or a learnt one.

Shapes are in the names: B questions, P word pieces of the longest of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing
from tokenizers.trainers import WordPieceTrainer
from torch import Tensor

from vqabench.errors import first_few

PADDING, UNKNOWN, FIRST, LAST, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUING = "##"
DROPPED = ("?", ",")
"""Marks of questions that the data set removes from its words."""

Vocabulary = Mapping[str, int]


class WordPieces:
    """The tokeniser of uncased BERT: [CLS], the pieces of a question, [SEP], padded behind with [PAD].

    Raises ValueError if the vocabulary lacks one of the special pieces.
    """

    def __init__(self, vocabulary: Vocabulary, length: int) -> None:
        lacking = [piece for piece in (PADDING, UNKNOWN, FIRST, LAST) if piece not in vocabulary]
        if lacking:
            raise ValueError(f"the vocabulary of word pieces lacks {', '.join(lacking)}")
        # Not the length: published vocabularies may have gaps.
        self.size = max(vocabulary.values()) + 1
        self.padding, self.unknown, first, last = (vocabulary[p] for p in (PADDING, UNKNOWN, FIRST, LAST))
        self.frame = (self.padding, first, last)
        """Pieces that are not part of the question."""
        self.wordless = (*self.frame, *(vocabulary[mark] for mark in DROPPED if mark in vocabulary))
        """Pieces that are not words of the question: the frame and punctuation that the data set removes."""
        self.vocabulary = vocabulary
        self.tokenizer = _untrained(WordPiece(dict(vocabulary), unk_token=UNKNOWN))
        # Truncation counts [CLS] and [SEP], so that a long question keeps both.
        self.tokenizer.post_processor = BertProcessing((LAST, last), (FIRST, first))
        self.tokenizer.enable_truncation(length)
        self.tokenizer.enable_padding(pad_id=self.padding, pad_token=PADDING)

    def to_tensor(self) -> Tensor:
        """Return the vocabulary as JSON in a uint8 tensor, stored with the weights; `read_tensor` decodes it."""
        return torch.tensor(list(json.dumps(dict(sorted(self.vocabulary.items()))).encode()), dtype=torch.uint8)

    def encode(self, questions: Sequence[str]) -> Tensor:
        """Return int64 [B, P], P at most the tokeniser's length: longer questions are cut before [SEP]."""
        rows = [one.ids for one in self.tokenizer.encode_batch_fast(list(questions))]
        return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), len(rows[0]) if rows else 0)


def learn_vocabulary(words: Iterable[str], size: int) -> Vocabulary:
    """Learn at most `size` word pieces from a data set's words, each of them counted once.

    If `size` allows it, every word is one piece. Other words are composed of pieces. The same words give the same
    vocabulary in every process.

    Raises ValueError if `size` is less than the number of distinct characters and special pieces.
    """
    # Each word counts once, because the data set does not say how often it occurs.
    texts = [*words, *DROPPED]
    learner = _untrained(WordPiece(unk_token=UNKNOWN))
    characters = sorted({letter for text in texts for part in _split(learner, text) for letter in part})
    # The library numbers continuing characters in an order that differs between processes, and its merges depend on
    # the numbers; as special tokens they are numbered in this order.
    certain = [*SPECIAL, *characters, *(CONTINUING + letter for letter in characters)]
    if size < len(certain):
        raise ValueError(f"vocabulary must be at least {len(certain)}, for the characters alone, not {size}")
    learner.train_from_iterator(
        texts,
        WordPieceTrainer(
            vocab_size=size, special_tokens=certain, continuing_subword_prefix=CONTINUING, show_progress=False
        ),
    )
    learnt: Vocabulary = learner.get_vocab()
    return learnt


def read_tensor(kept: Tensor) -> Vocabulary:
    """Decode a vocabulary from `WordPieces.to_tensor`. Raises ValueError if it is not one."""
    read: Vocabulary = json.loads(bytes(kept.tolist()))
    return read


def read_vocabulary(folder: Path) -> Vocabulary:
    """Read the vocabulary of published weights: `vocab.txt`, or else `tokenizer.json`.

    Raises ValueError if there is neither, or it is not a vocabulary of word pieces.
    """
    listed, described = folder / "vocab.txt", folder / "tokenizer.json"
    if listed.is_file():
        try:
            pieces = listed.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{listed}: not UTF-8 text") from error
        if len(set(pieces)) < len(pieces):
            raise ValueError(
                f"{listed}: holds {first_few((p for p, n in Counter(pieces).items() if n > 1), 3)} twice"
            )
        return {piece: number for number, piece in enumerate(pieces)}
    if not described.is_file():
        raise ValueError(f"{folder} holds no vocab.txt and no tokenizer.json")
    try:
        model = json.loads(described.read_text(encoding="utf-8"))["model"]
        if model["type"] != "WordPiece":
            raise ValueError(f"{described}: is of the kind {model['type']}, not WordPiece")
        return {str(piece): int(number) for piece, number in model["vocab"].items()}
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{described}: holds no vocabulary of word pieces") from error


def _untrained(model: WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer


def _split(tokenizer: Tokenizer, text: str) -> list[str]:
    """Cut a text at spaces and around punctuation, as the tokeniser does before it looks for pieces."""
    normal = tokenizer.normalizer.normalize_str(text)
    return [part for part, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]
