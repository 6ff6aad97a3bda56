"""All that a plugin imports.

Names end with shapes: B batch, A answers of the vocabulary, T question types, R regions of an image,
V width of a region's feature, L words of a question, E width of a word vector, H hidden width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from vqabench.errors import PluginError

API_VERSION = 1
"""Major version of this module. A plugin class that was written for another one is refused."""

PADDING = 0
"""Token that fills a short question in front. `DataSpec.words[0]`."""
UNKNOWN = 1
"""Token of every word that occurs in no training question. `DataSpec.words[1]`."""


@dataclass(frozen=True, eq=False)
class DataSpec:
    """What a backbone may know about a data set. All counts come from the training split alone.

    A question type that does not occur in training has zero counts and the uniform mean target 1 / A.
    """

    answers: tuple[str, ...]
    """The vocabulary, most frequent answer first: A normalised answers."""
    words: tuple[str, ...]
    """The padding token, the unknown token, and then the words of the training questions."""
    question_types: tuple[str, ...]
    """T names, such as "how many"."""
    regions: int
    """R, the largest number of regions of an image."""
    region_width: int
    """V."""
    question_length: int
    """L."""
    answer_counts_TA: Tensor
    """float32: how often each answer was given to each type, all human answers counted (n_i^j of Eq. 7)."""
    mean_targets_TA: Tensor
    """float32 in [0, 1]: mean soft target of each answer over the questions of a type."""
    questions_T: Tensor
    """int64: number of training questions of each type."""
    word_vectors: Tensor | None = None
    """float32 [len(words), E]: pre-trained vectors, zero for a word that has none."""
    object_names: tuple[str, ...] | None = None
    """Class names that `Batch.object_ids_BR` points into."""


@dataclass(frozen=True, eq=False)
class Batch:
    """B questions with their images. `replace` makes a counterfactual."""

    question_ids_B: Tensor
    """int64."""
    question_types_B: Tensor
    """int64 in [0, T)."""
    tokens_BL: Tensor
    """int64 in [0, len(words)), padded in front."""
    word_mask_BL: Tensor
    """bool: True at real words, False at padding."""
    type_words_BL: Tensor
    """bool: True at the words at the start of the question that spell its type."""
    regions_BRV: Tensor
    """Region features; zero where `region_mask_BR` is False. float32, or bfloat16 if the run computes in bfloat16.

    Layers accept both; operations of your own with parameters, which are float32, return float32.
    """
    boxes_BR4: Tensor
    """float32 in [0, 1]: left, top, right, bottom as fractions of the image's width and height."""
    region_mask_BR: Tensor
    """bool: True at real regions; at least one per image."""
    object_ids_BR: Tensor | None = None
    """int64 indices into `DataSpec.object_names`."""
    targets_BA: Tensor | None = None
    """float32 soft targets in [0, 1]; None when the model is being tested."""
    answered_B: Tensor | None = None
    """bool: whether an annotator gave an answer of the vocabulary. A counterfactual without targets keeps it. None
    in batches that never had targets, and in batches made by hand."""
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """The tensors that the backbone's `prepare_questions` returned, with the rows of this batch."""

    def replace(self, **changes: Any) -> Self:
        """Return the same batch with other values in the named fields."""
        return dataclasses.replace(self, **changes)

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the batch with every tensor changed: moved to a device, or reduced to some of the questions."""
        fields = {name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return self.replace(**fields, extras={name: change(value) for name, value in self.extras.items()})

    def __len__(self) -> int:
        return len(self.question_ids_B)


@dataclass(frozen=True, kw_only=True, eq=False)
class Output:
    """What a backbone returns for a batch."""

    logits_BA: Tensor
    """What is scored."""
    training_logits_BA: Tensor | None = None
    """What the loss sees instead of `logits_BA`, for example with a bias added."""
    auxiliary: Mapping[str, tuple[Tensor, float]] = field(default_factory=dict)
    """Further logits [B, A] and their weights: scored by the same loss and added to it."""
    penalties: Mapping[str, Tensor] = field(default_factory=dict)
    """Scalars added to the loss as they are. Only where the batch has targets.

    The names of auxiliary losses and penalties must differ, and `answers` is taken.
    """
    question_features_BQ: Tensor | None = None
    """The question encoder's output."""
    joint_features_BH: Tensor | None = None
    """What the classifier sees."""
    word_embeddings_BLE: Tensor | None = None
    """The embedded words, part of the autograd graph; `Backbone.word_masks` shows which of them are words."""
    attention_BR: Tensor | None = None
    """Attention over regions: sums to 1, exactly 0 where `region_mask_BR` is False."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a backbone is trained, unless the user changes it."""

    epochs: int = 20
    """Epochs of the first (or only) stage."""
    finetune_epochs: int = 10
    """Epochs of the second stage, if the strategy has one."""
    batch_size: int = 512
    optimizer: Literal["adamax", "adam", "adamw", "bert-adam"] = "adamax"
    """`bert-adam`: AdamW as BERT was trained: no bias correction, and an epsilon of 1e-6."""
    lr: float = 2e-3
    weight_decay: float = 0.0
    schedule: Literal["constant", "linear"] = "constant"
    """`linear`: the learning rate falls to 0 over each stage, behind the warm-up."""
    warmup: float = 0.0
    """Share of a stage's steps over which the learning rate rises from 0."""
    clip: float | None = 0.25
    """The gradient's norm over all parameters is clipped to this."""
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    """`balanced`: questions are drawn with replacement, every type as often, and within it every answer."""


Criterion = Callable[[Output, Batch], Tensor]
"""Loss of `training_logits_BA` (or `logits_BA`), plus weighted auxiliary losses, plus penalties: a scalar."""


class Backbone(nn.Module):
    """A VQA model: from a batch to logits over the answers.

    Options are the keyword-only arguments of `__init__`, with a type and a default each; a value out of range
    raises ValueError. An argument annotated `base: Backbone` receives another backbone, ready made.

    Random numbers come from PyTorch's generators: those are seeded, and restored when a run is resumed.
    """

    api_version: ClassVar[int] = 1
    """The version of this module that the class was written for; a class that does not state it: the first."""
    objectives: ClassVar[tuple[str, ...]] = ("bce", "ce")
    """The objectives that the backbone supports."""
    recipe: Recipe = Recipe()
    question_width: int = 0
    """Width of `Output.question_features_BQ`, for parts that build on it; 0 if the backbone returns none."""
    joint_width: int = 0
    """Width of `Output.joint_features_BH`, likewise."""
    notes: tuple[str, ...] = ()
    """What a reader of its numbers must know, such as its pre-trained weights: printed, and kept with the run."""
    brands: tuple[str, ...] = ()
    """What it has already seen of test questions, as pre-trained weights may have: every table is marked."""
    advises_against: ClassVar[Mapping[str, str]] = {}
    """Losses and transforms that it should not be combined with, each with the reason: the user is warned."""
    declarations: ClassVar[Mapping[str, str]] = {}
    """Checks of `vqabench plugins check`, and objectives, that this class is exempt from, each with the reason.

    `gradients:PATTERN` exempts parameters whose names end with the pattern; `*` matches anything.
    """
    check_options: ClassVar[Mapping[str, Any]] = {}
    """Options that make it small; `vqabench plugins check` builds it with these."""
    capturable: ClassVar[bool] = False
    """Whether a step has the same operations for every batch of the same size, and no state in Python.

    It must not branch on values on the device, on random numbers or on the number of steps, and must change buffers
    in place. On a GPU the step is then recorded as a CUDA graph once per epoch and replayed, in half of the time or
    less. Every part of a run must declare it in its own class: the backbone, its bases, the transforms, the loss.
    """
    default_base: ClassVar[str | None] = None
    """Name of the backbone that `base` receives if the user names none; None: the user must name one.

    Write it as `distribution:name`, because another distribution may offer a backbone of the same name.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()

    def start(self) -> None:
        """Load what training starts from, such as published weights; mention it in `notes` and `brands`.

        Not called if a run's own state is restored, because this must need only the run's folder. Raises
        ValueError if something is missing or does not fit.
        """

    def forward(self, batch: Batch) -> Output:
        """Answer the questions of a batch."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward(batch)")

    def prepare_questions(self, questions: Sequence[str]) -> Mapping[str, Tensor]:
        """Return the questions as tokenised by the backbone itself: tensors with one row per question, or none."""
        return {}

    def word_masks(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return which positions of `Output.word_embeddings_BLE` are real words, and which of them spell the type.

        Two bool tensors [B, L]. A backbone with its own tokeniser must override this.
        """
        return batch.word_mask_BL, batch.type_words_BL

    def hide_words(self, batch: Batch, hidden_BL: Tensor) -> Batch:
        """Return the batch with the words at some positions of `word_masks` replaced by the unknown token.

        Raises PluginError if the backbone has its own tokeniser and does not override this.
        """
        if batch.extras:
            raise PluginError(
                f"{type(self).__name__} has a tokeniser of its own but no method to hide words from it; "
                "its author must override word_masks and hide_words"
            )
        return batch.replace(tokens_BL=batch.tokens_BL.masked_fill(hidden_BL, UNKNOWN))

    def training_losses(self, batch: Batch, criterion: Criterion) -> Iterator[Tensor]:
        """Yield the batch's losses, scalars; the training loop takes one optimiser step after each.

        Call `criterion` first on the batch itself: this call also measures the training accuracy. A wrapper must
        call `self.base.training_losses`, because its base may have a procedure of its own.
        """
        yield criterion(self(batch), batch)


class Wrapper(Backbone):
    """A backbone around another one, for instance to add a bias in training or to change how it is trained.

    By default it returns what its base returns. `default_base` names the base if the user does not.
    """

    def __init__(self, spec: DataSpec, base: Backbone) -> None:
        super().__init__(spec)
        self.base = base
        self.question_width, self.joint_width = base.question_width, base.joint_width

    def start(self) -> None:
        """Start as the base does."""
        self.base.start()

    def forward(self, batch: Batch) -> Output:
        """Answer as the base does."""
        output: Output = self.base(batch)
        return output

    def prepare_questions(self, questions: Sequence[str]) -> Mapping[str, Tensor]:
        """Tokenise as the base does."""
        return self.base.prepare_questions(questions)

    def word_masks(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Count words as the base does."""
        return self.base.word_masks(batch)

    def hide_words(self, batch: Batch, hidden_BL: Tensor) -> Batch:
        """Hide words as the base does."""
        return self.base.hide_words(batch, hidden_BL)


class Transform(Wrapper):
    """A part of a strategy that wraps the innermost network, in training and in testing, such as an answer mask."""


class Loss(nn.Module):
    """A classification loss over soft targets. Options as for `Backbone`."""

    api_version: ClassVar[int] = 1
    """As for `Backbone`."""
    objectives: ClassVar[tuple[str, ...]] = ("bce", "ce")
    declarations: ClassVar[Mapping[str, str]] = {}
    """As for `Backbone`."""
    capturable: ClassVar[bool] = False
    """See `Backbone.capturable`. Values that `start_epoch` sets may differ between epochs."""
    finetunes: ClassVar[bool] = False
    """True: if the strategy has a transform, the first stage uses the plain loss, the second stage this one."""

    def __init__(self, spec: DataSpec, objective: str) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        """Return the loss of the logits against `batch.targets_BA`: a scalar, averaged over the batch."""
        raise NotImplementedError

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Prepare for epoch `epoch` (from 0) of a stage of `epochs`."""


def plain_loss(objective: str, logits_BA: Tensor, targets_BA: Tensor) -> Tensor:
    """Return the loss of every answer, unweighted: [B, A], to be summed over A and averaged over B.

    `bce`: the sigmoid's binary cross-entropy (Eq. 2); `ce`: the softmax's cross-entropy (Eq. 3).
    """
    if objective == "bce":
        return nn.functional.binary_cross_entropy_with_logits(logits_BA, targets_BA, reduction="none")
    return -targets_BA * torch.log_softmax(logits_BA, dim=1)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which `device` computes in the types of the operands, even inside autocast.

    It also works on devices without autocast, for which `torch.autocast` raises an error.
    """
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
