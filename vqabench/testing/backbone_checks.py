"""Checks of a backbone's outputs and inputs, and of a wrapper's or transform's way with its base."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from vqabench.api import Backbone, Batch, DataSpec, Output
from vqabench.errors import PluginError, VqabenchError
from vqabench.losses.plain import Plain
from vqabench.testing.checks import FailedCheckError, SkippedCheckError, describe_error, require
from vqabench.testing.samples import Innermost, LogitsAlone, OwnTokens, make_sample, make_spec
from vqabench.training.checkpoint import own_tensors
from vqabench.training.criterion import Criterion

Build = Callable[[DataSpec], Backbone]
BASES: Mapping[str, type[Innermost]] = {
    "a base that returns only logits": LogitsAlone,
    "a base with its own tokeniser": OwnTokens,
}
STEPS = 3
"""Training steps after which a model may hold state of its own."""

CLOSE = 1e-3
"""Tolerance for rounding in another order, as a share of the differences between questions' logits."""
CLOSE_AT_ALL = 1e-5
"""Additional tolerance, as a share of the largest logit."""


class BackboneChecks:
    """The checks of one backbone's outputs; every call of `build` makes a new one with other weights.

    ESSENTIAL checks come first.
    """

    ESSENTIAL = ("questions", "output")

    def __init__(self, build: Build, objective: str) -> None:
        self.build, self.objective = build, objective
        self.spec = make_spec()
        self.sample = make_sample(self.spec, 8, odd=True)

    def _build_tested(self) -> tuple[Backbone, Batch]:
        """Return a new model in evaluation mode, and its batch without targets."""
        model = build_seeded(self.build, self.spec).eval()
        return model, self.sample.given_to(model).replace(targets_BA=None)

    def check_questions(self) -> str:
        """Check that `prepare_questions` returns a row per question, and the same each time."""
        model = build_seeded(self.build, self.spec)
        texts = [*self.sample.questions, "Zyzzyva?"]
        made, again = model.prepare_questions(texts), model.prepare_questions(texts)
        for name, rows in made.items():
            require(isinstance(rows, Tensor), f"{name} is a {type(rows).__name__}, not a tensor")
            require(len(rows) == len(texts), f"{name} has {len(rows)} rows for {len(texts)} questions")
            require(torch.equal(rows, again[name]), f"{name} is different the second time")
        return f"makes {', '.join(made)}" if made else "uses the batch's tokens"

    def check_output(self) -> str:
        """Check shapes and types, with targets and without, that all is finite, and that the batch is unchanged."""
        model = build_seeded(self.build, self.spec)
        batch = self.sample.given_to(model)
        before = batch.map(torch.clone)
        for given in (batch, batch.replace(targets_BA=None)):
            for mode in (model.train(), model.eval()):
                output = mode(given)
                require(isinstance(output, Output), f"a backbone returns an Output, not a {type(output).__name__}")
                _check_form(output, given, model, (len(batch), len(self.spec.answers)))
        losses = model.train().training_losses(batch, criterion_of(self.spec, self.objective))
        require(
            isinstance(losses, Iterator), f"training_losses must yield losses; it returns a {type(losses).__name__}"
        )
        require(any(True for _ in losses), "training_losses yields no loss")
        require_unchanged(before, batch)
        return f"logits {list(output.logits_BA.shape)}, finite"

    def check_data(self) -> str:
        """Check that it works without word vectors and object names, which a data set need not have."""
        spec = make_spec(bare=True)
        model = build_seeded(self.build, spec).eval()
        batch = make_sample(spec, 8).given_to(model).replace(targets_BA=None)
        require(bool(model(batch).logits_BA.isfinite().all()), "not finite without word vectors and object names")
        return "works without word vectors and object names"

    def check_attention(self) -> str:
        """Check that attention sums to 1 over real regions and is exactly 0 elsewhere."""
        model, batch = self._build_tested()
        attention_BR = model(batch).attention_BR
        if attention_BR is None:
            raise SkippedCheckError("it returns none (attention_BR)")
        require(attention_BR.shape == batch.region_mask_BR.shape, f"attention is {list(attention_BR.shape)}")
        require(
            not attention_BR[~batch.region_mask_BR].any(), "attention is not exactly 0 where there is no region"
        )
        require((attention_BR >= 0).all(), "attention is negative somewhere")
        require(torch.allclose(attention_BR.sum(1), torch.ones(len(batch))), "attention does not sum to 1")
        return "sums to 1, 0 where there is no region"

    def check_words(self) -> str:
        """Check that the words it embeds can be distinguished from padding, and hidden."""
        model, batch = self._build_tested()
        words_BLE = model(batch).word_embeddings_BLE
        if words_BLE is None:
            raise SkippedCheckError("it returns none (word_embeddings_BLE)")
        words_BL, type_words_BL = model.word_masks(batch)
        require(
            words_BL.shape == type_words_BL.shape == words_BLE.shape[:2],
            f"{words_BLE.shape[1]} words are embedded, but word_masks has {words_BL.shape[1]} positions",
        )
        require(not (type_words_BL & ~words_BL).any(), "word_masks: a position is part of the type, but not a word")
        try:
            hidden = model.hide_words(batch, words_BL & ~type_words_BL)
        except PluginError as error:
            raise SkippedCheckError(f"they cannot be hidden: {error}") from error
        require(bool(model(hidden).logits_BA.isfinite().all()), "not finite with words hidden")
        return "can be distinguished from padding, and hidden"

    def check_targets(self) -> str:
        """Check that logits in evaluation mode do not depend on the targets."""
        model, batch = self._build_tested()
        given = batch.replace(targets_BA=self.sample.batch.targets_BA)
        agree(model(batch).logits_BA, model(given).logits_BA, "with targets and without")
        return "the same logits with targets and without"

    def check_padding(self) -> str:
        """Check that a question's logits do not depend on the rest of the batch, nor on padding."""
        model, batch = self._build_tested()
        together_BA = model(batch).logits_BA
        alone = [self.sample.alone(row).given_to(model) for row in range(len(together_BA))]
        alone_BA = torch.cat([model(one.replace(targets_BA=None)).logits_BA for one in alone])
        agree(together_BA, alone_BA, "alone and in a padded batch")
        return "the same logits alone and in a padded batch"

    def check_repetition(self) -> str:
        """Check that logits in evaluation mode are not random, and do not depend on earlier batches."""
        model, batch = self._build_tested()
        first = model(batch).logits_BA
        model(make_sample(self.spec, 3, seed=1).given_to(model).replace(targets_BA=None))
        require(torch.equal(first, model(batch).logits_BA), "the same batch has different logits the second time")
        return "the same logits each time"

    def check_state(self) -> str:
        """Check that its state after a few steps can be saved to a file and loaded into a new one."""
        model = train_briefly(build_seeded(self.build, self.spec), self.spec, self.objective).eval()
        content = save_tensors(own_tensors(model))
        other = build_seeded(self.build, self.spec, seed=1).eval()
        other.load_state_dict(load_tensors(content))
        batch = self.sample.given_to(model).replace(targets_BA=None)
        require(
            torch.equal(model(batch).logits_BA, other(batch).logits_BA),
            "a copy loaded from its state dict has different logits; keep state in persistent buffers",
        )
        losses = []
        for one in (model, other):
            torch.manual_seed(0)
            batch, criterion = self.sample.given_to(one), criterion_of(self.spec, self.objective)
            losses.append(next(iter(one.train().training_losses(batch, criterion))))
        require(
            torch.equal(*losses),
            "a copy loaded from its state dict trains differently; keep all state in parameters or buffers",
        )
        return f"{len(model.state_dict())} tensors through safetensors"


def check_bases(kind: type[Backbone], options: Mapping[str, Any], parameter: str, objective: str) -> str:
    """Check that a class trains around each of BASES, or refuses it with ValueError or VqabenchError."""
    found = []
    for name, base in BASES.items():
        spec = make_spec()
        try:
            model = kind(spec, **{parameter: base(spec)}, **options)
            train_briefly(model, spec, objective)
            found.append(f"{name}: trained")
        except (ValueError, VqabenchError) as error:
            found.append(f"{name}: refused ({error})")
        except Exception as error:  # a plugin may raise anything
            raise FailedCheckError(f"around {name}: {describe_error(error)}") from error
    return "; ".join(found)


def build_seeded(build: Build, spec: DataSpec, seed: int = 0) -> Backbone:
    """Build a backbone with the initial weights of a seed."""
    torch.manual_seed(seed)
    return build(spec)


def criterion_of(spec: DataSpec, objective: str, device: str = "cpu") -> Criterion:
    """Return the criterion of the plain loss."""
    return Criterion(Plain(spec, objective).to(device))


def train_briefly(model: Backbone, spec: DataSpec, objective: str) -> Backbone:
    """Take a few steps with the plain loss, each on other questions; return the model."""
    criterion = criterion_of(spec, objective)
    parameters = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1) if parameters else None
    for step in range(STEPS):
        batch = make_sample(spec, 8, seed=step).given_to(model)
        for value in model.train().training_losses(batch, criterion):
            if optimizer is not None:
                optimizer.zero_grad()
                torch.autograd.backward(value)
                optimizer.step()
    return model


def agree(
    expected_BA: Tensor, found_BA: Tensor, when: str, close: float = CLOSE, close_at_all: float = CLOSE_AT_ALL
) -> None:
    """Raise FailedCheckError unless two batches of logits [B, A] are equal up to rounding.

    Differences are measured against those between questions, because an untrained model's logits are nearly equal.
    """
    expected_BA, found_BA = expected_BA.detach().float(), found_BA.detach().float()
    spread = float((expected_BA - expected_BA.mean(0)).abs().max())
    allowed = close * spread + close_at_all * float(expected_BA.abs().max())
    difference = float((expected_BA - found_BA).abs().max())
    require(
        difference <= allowed, f"logits differ by {difference:.2g} {when}, and by {spread:.2g} between questions"
    )


def require_unchanged(before: Batch, batch: Batch) -> None:
    """Raise FailedCheckError if a batch has changed."""
    pairs = [
        (name, value, getattr(batch, name)) for name, value in vars(before).items() if isinstance(value, Tensor)
    ]
    changed = [name for name, value, now in pairs if not torch.equal(value, now)]
    require(not changed, f"it changes its batch: {', '.join(changed)}")


def _check_form(output: Output, batch: Batch, model: Backbone, answers: tuple[int, int]) -> None:
    logits = {"logits_BA": output.logits_BA, "training_logits_BA": output.training_logits_BA}
    logits |= {f"auxiliary[{name!r}]": one for name, (one, _) in output.auxiliary.items()}
    for name, one in logits.items():
        if one is not None:
            _check_tensor(name, one, answers)
    for name, one in output.penalties.items():
        _check_tensor(f"penalties[{name!r}]", one, ())
        require(batch.targets_BA is not None, f"penalties[{name!r}] is returned without targets")
    for name, features, width in (
        ("question_features_BQ", output.question_features_BQ, model.question_width),
        ("joint_features_BH", output.joint_features_BH, model.joint_width),
    ):
        found = 0 if features is None else features.shape[-1]
        require(width in (0, found), f"{name} is {found} wide, but the class says {width}")
        if features is not None:
            _check_tensor(name, features, (len(batch), found))
    if output.word_embeddings_BLE is not None:
        _check_tensor("word_embeddings_BLE", output.word_embeddings_BLE, (len(batch), None, None))


def _check_tensor(name: str, tensor: Tensor, shape: Sequence[int | None]) -> None:
    """Check that a tensor is floating-point, finite, and of a shape (None: any length)."""
    require(isinstance(tensor, Tensor), f"{name} is a {type(tensor).__name__}, not a tensor")
    fits = tensor.ndim == len(shape) and all(
        wanted in (None, length) for wanted, length in zip(shape, tensor.shape, strict=True)
    )
    expected = (
        f"[{', '.join('any' if wanted is None else str(wanted) for wanted in shape)}]" if shape else "a scalar"
    )
    require(
        tensor.is_floating_point() and fits,
        f"{name} is {tensor.dtype} {list(tensor.shape)}; it must be floating-point, {expected}",
    )
    require(bool(tensor.isfinite().all()), f"{name} is not finite")
