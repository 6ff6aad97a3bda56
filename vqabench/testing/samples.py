"""A small data set in memory, on which plugins are checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vqabench.api import PADDING, UNKNOWN, Backbone, Batch, DataSpec, Output

TYPES = ("how many", "what color is the", "is there a", "never seen")
NOUNS = ("dogs", "cats", "bus", "tree", "ball", "boat", "hats", "kite")
ANSWERS = 12
OBJECTS = ("dog", "cat", "red bus", "tree")


def make_spec(
    *, regions: int = 4, region_width: int = 16, question_length: int = 8, bare: bool = False
) -> DataSpec:
    """Return a data set of 12 answers and four question types, the last one without training questions.

    It has object names and word vectors, of width 6, unless it is `bare`.
    """
    generator = torch.Generator().manual_seed(0)
    names = dict.fromkeys(word for text in (*TYPES[:3], *NOUNS, *OBJECTS) for word in text.split())
    words = ("<padding>", "<unknown>", *names)
    counts_TA = torch.randint(0, 60, (len(TYPES), ANSWERS), generator=generator).float()
    counts_TA[0, :2], counts_TA[:, -1], counts_TA[-1] = 200, 0, 0
    shares_TA = counts_TA / counts_TA.sum(1, keepdim=True).clamp(min=1)
    shares_TA[-1] = 1 / ANSWERS
    vectors = torch.randn(len(words), 6, generator=generator)
    vectors[PADDING] = 0
    return DataSpec(
        answers=tuple(f"answer {number}" for number in range(ANSWERS)),
        words=words,
        question_types=TYPES,
        regions=regions,
        region_width=region_width,
        question_length=question_length,
        answer_counts_TA=counts_TA,
        mean_targets_TA=shares_TA,
        questions_T=torch.tensor([50, 40, 30, 0]),
        word_vectors=None if bare else vectors,
        object_names=None if bare else OBJECTS,
    )


@dataclass(frozen=True)
class Sample:
    """Questions as text, and their batch."""

    questions: Sequence[str]
    batch: Batch

    def given_to(self, model: Backbone) -> Batch:
        """Return the batch with the extras that the model makes from the questions' text."""
        return self.batch.replace(extras=dict(model.prepare_questions(self.questions)))

    def alone(self, row: int) -> Sample:
        """Return one of the questions, without padded regions."""
        batch = take(self.batch, torch.tensor([row]))
        regions = int(batch.region_mask_BR.sum())
        cut = {
            name: value[:, :regions]
            for name, value in vars(batch).items()
            if name.endswith(("_BR", "_BRV", "_BR4")) and value is not None
        }
        return Sample(self.questions[row : row + 1], batch.replace(**cut))


def make_sample(spec: DataSpec, size: int, seed: int = 0, *, odd: bool = False) -> Sample:
    """Return `size` questions about images of 1 to R regions.

    They are of each type with training questions in turn. Each has a random answer with soft target 1, and another
    with 0.3. With `odd`, the first three are special: of a type without training questions, without an answer in
    the vocabulary, and without a word.
    """
    generator = torch.Generator().manual_seed(seed)
    types_B = torch.arange(size) % (len(spec.question_types) - 1)
    if odd:
        types_B[0] = len(spec.question_types) - 1
    nouns = torch.randint(len(NOUNS), (size,), generator=generator).tolist()
    pairs = zip(types_B.tolist(), nouns, strict=True)
    questions = [f"{spec.question_types[kind].capitalize()} {NOUNS[noun]}?" for kind, noun in pairs]
    first_B1 = torch.randint(len(spec.answers) - 1, (size, 1), generator=generator)
    targets_BA = torch.zeros(size, len(spec.answers))
    targets_BA.scatter_(1, (first_B1 + 1) % len(spec.answers), 0.3).scatter_(1, first_B1, 1.0)
    if odd:
        targets_BA[1], questions[2] = 0, ""
    tokens_BL, typed_BL = _tokenise(spec, questions, types_B)
    batch = Batch(
        question_ids_B=torch.arange(size),
        question_types_B=types_B,
        tokens_BL=tokens_BL,
        word_mask_BL=tokens_BL != PADDING,
        type_words_BL=typed_BL,
        targets_BA=targets_BA,
        answered_B=(targets_BA > 0).any(1),
        **_draw_images(spec, size, generator),
    )
    return Sample(questions, batch)


def _draw_images(spec: DataSpec, size: int, generator: torch.Generator) -> dict[str, Any]:
    counts_B1 = 1 + torch.randint(spec.regions, (size, 1), generator=generator)
    mask_BR = torch.arange(spec.regions) < counts_B1
    corners = torch.rand(size, spec.regions, 2, 2, generator=generator).sort(dim=2).values
    images = {
        "regions_BRV": torch.rand(size, spec.regions, spec.region_width, generator=generator) * mask_BR[..., None],
        "boxes_BR4": corners.flatten(2) * mask_BR[..., None],
        "region_mask_BR": mask_BR,
    }
    if spec.object_names is not None:
        images["object_ids_BR"] = torch.randint(len(spec.object_names), mask_BR.shape, generator=generator)
    return images


def _tokenise(spec: DataSpec, questions: Sequence[str], types_B: Tensor) -> tuple[Tensor, Tensor]:
    numbers = {word: number for number, word in enumerate(spec.words)}
    tokens_BL = torch.full((len(questions), spec.question_length), PADDING)
    typed_BL = torch.zeros_like(tokens_BL, dtype=torch.bool)
    for row, (question, kind) in enumerate(zip(questions, types_B.tolist(), strict=True)):
        words = question.lower().strip("?").split()[: spec.question_length]
        first = spec.question_length - len(words)
        tokens_BL[row, first:] = torch.tensor([numbers.get(word, UNKNOWN) for word in words])
        typed_BL[row, first : first + len(spec.question_types[kind].split())] = True
    return tokens_BL, typed_BL


def take(batch: Batch, rows: Tensor) -> Batch:
    """Return the questions of a batch at some rows (int64)."""
    return batch.map(lambda tensor: tensor[rows])


class Innermost(Backbone):
    """A minimal network that returns everything a wrapper may use: means of words and of regions."""

    capturable = True

    def __init__(self, spec: DataSpec, *, hidden: int = 16) -> None:
        super().__init__(spec)
        self.question_width = self.joint_width = hidden
        self.words = torch.nn.Embedding(len(spec.words), hidden, padding_idx=PADDING)
        self.regions = torch.nn.Linear(spec.region_width, hidden)
        self.answers = torch.nn.Linear(hidden, len(spec.answers))

    def forward(self, batch: Batch) -> Output:
        """Return logits from the product of the two means."""
        words_BLE = self.words(batch.tokens_BL)
        question_BQ = words_BLE.sum(1) / batch.word_mask_BL.sum(1, keepdim=True).clamp(min=1)
        share_BR = batch.region_mask_BR / batch.region_mask_BR.sum(1, keepdim=True)
        joint_BH = question_BQ * torch.einsum("br,brh->bh", share_BR, self.regions(batch.regions_BRV))
        return Output(
            logits_BA=self.answers(joint_BH),
            question_features_BQ=question_BQ,
            joint_features_BH=joint_BH,
            word_embeddings_BLE=words_BLE,
            attention_BR=share_BR,
        )


class LogitsAlone(Innermost):
    """A base that returns only logits."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.question_width = self.joint_width = 0

    def forward(self, batch: Batch) -> Output:
        """Return the logits of Innermost alone."""
        return Output(logits_BA=super().forward(batch).logits_BA)


class OwnTokens(Innermost):
    """A base with its own tokeniser, which pads behind the question."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.numbers = {word: number for number, word in enumerate(spec.words)}

    def prepare_questions(self, questions: Sequence[str]) -> Mapping[str, Tensor]:
        """Return the words' numbers, padded behind: int64 [N, longest question]."""
        rows = [[self.numbers.get(word, UNKNOWN) for word in text.lower().strip("?").split()] for text in questions]
        longest = max(1, *map(len, rows)) if rows else 1
        return {"own": torch.tensor([row + [PADDING] * (longest - len(row)) for row in rows])}

    def forward(self, batch: Batch) -> Output:
        """Return the output of Innermost for its own tokens."""
        own_BL = batch.extras["own"]
        return super().forward(batch.replace(tokens_BL=own_BL, word_mask_BL=own_BL != PADDING))

    def word_masks(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return all words, and none as the type's."""
        words_BL = batch.extras["own"] != PADDING
        return words_BL, torch.zeros_like(words_BL)

    def hide_words(self, batch: Batch, hidden_BL: Tensor) -> Batch:
        """Replace some of its own tokens by the unknown word."""
        own_BL = batch.extras["own"].masked_fill(hidden_BL, UNKNOWN)
        return batch.replace(extras={**batch.extras, "own": own_BL})
