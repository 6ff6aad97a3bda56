"""What every backbone must hold to, and every transform around one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from vqabench.api import Backbone, Batch, DataSpec, Loss, Output
from vqabench.testing.checks import FailedCheckError, Question, SkippedCheckError
from vqabench.testing.samples import make_sample, make_spec, pad_regions, take
from vqabench.training.criterion import Criterion, soft_accuracy
from vqabench.training.optimizer import make_optimizer

Build = Callable[[DataSpec], Backbone]
BuildLoss = Callable[[DataSpec, str], Loss]

CLOSE = 1e-4
"""Largest difference of logits that rounding in another order may make, in float32."""
LEARNED = 0.9
"""Soft accuracy on 64 questions that a model which can learn anything gets to."""
MOST_STEPS = 400
WIDE = 128
"""Width of regions where something is learnt: sizes of a model may follow from it."""


class BackboneChecks:
    """The checks of one backbone; `build` makes a new one with other weights each time."""

    def __init__(self, build: Build, plain: BuildLoss, objectives: Sequence[str]) -> None:
        self.build, self.plain, self.objective = build, plain, objectives[0]
        self.spec = make_spec()
        self.sample = make_sample(self.spec, 6)

    def questions(self) -> Iterator[Question]:
        """Give all checks."""
        for name in (
            *("output", "attention", "questions", "targets", "padding", "repetition", "state"),
            *("gradients", "learning", "autocast", "compile", "devices"),
        ):
            yield name, getattr(self, f"check_{name}")

    def model(self, seed: int = 0, spec: DataSpec | None = None) -> Backbone:
        """Build the backbone with the weights of a seed."""
        torch.manual_seed(seed)
        return self.build(spec or self.spec)

    def check_output(self) -> str:
        """Shapes and kinds, with targets and without; everything finite."""
        model = self.model()
        batch = self.sample.given_to(model)
        for given in (batch, batch.replace(targets_BA=None)):
            for mode in (model.train(), model.eval()):
                output = mode(given)
                _must(isinstance(output, Output), f"a backbone gives an Output, not a {type(output).__name__}")
                _check_form(output, given, model, (len(batch), len(self.spec.answers)))
        return f"logits {list(output.logits_BA.shape)}, finite"

    def check_attention(self) -> str:
        """It sums to 1 over real regions and is exactly 0 elsewhere."""
        model = self.model().eval()
        batch = self.sample.given_to(model)
        attention_BR = model(batch).attention_BR
        if attention_BR is None:
            raise SkippedCheckError("it gives none")
        _must(attention_BR.shape == batch.region_mask_BR.shape, f"attention is {list(attention_BR.shape)}")
        _must(not attention_BR[~batch.region_mask_BR].any(), "attention is not exactly 0 where there is no region")
        _must((attention_BR >= 0).all(), "attention is negative somewhere")
        _must(torch.allclose(attention_BR.sum(1), torch.ones(len(batch))), "attention does not sum to 1")
        return "sums to 1, 0 where there is no region"

    def check_questions(self) -> str:
        """What it makes of questions has a row for each, and is the same each time."""
        model = self.model()
        texts = [*self.sample.questions, "", "Zyzzyva?"]
        made, again = model.prepare_questions(texts), model.prepare_questions(texts)
        for name, rows in made.items():
            _must(isinstance(rows, Tensor) and len(rows) == len(texts), f"{name} has not a row for each question")
            _must(torch.equal(rows, again[name]), f"{name} is another the second time")
        return f"makes {', '.join(made)}" if made else "takes the batch's tokens"

    def check_targets(self) -> str:
        """What is tested must not depend on the right answers."""
        model = self.model().eval()
        batch = self.sample.given_to(model)
        _same(model(batch).logits_BA, model(batch.replace(targets_BA=None)).logits_BA, "with targets and without")
        return "the same logits with targets and without"

    def check_padding(self) -> str:
        """A question's answer must not depend on the questions beside it, nor on the room for regions."""
        model = self.model().eval()
        batch = self.sample.given_to(model).replace(targets_BA=None)
        together = model(batch).logits_BA
        for row in range(len(batch)):
            alone = take(batch, torch.tensor([row]))
            regions = int(alone.region_mask_BR.sum())
            cut = alone.replace(
                regions_BRV=alone.regions_BRV[:, :regions],
                boxes_BR4=alone.boxes_BR4[:, :regions],
                region_mask_BR=alone.region_mask_BR[:, :regions],
                object_ids_BR=None if alone.object_ids_BR is None else alone.object_ids_BR[:, :regions],
            )
            _same(model(cut).logits_BA[0], together[row], "alone and in a padded batch")
        _same(model(pad_regions(batch, 3)).logits_BA, together, "with more room for regions")
        return "the same logits alone and in a padded batch"

    def check_repetition(self) -> str:
        """In testing nothing is left to chance, and nothing remembered."""
        model = self.model().eval()
        batch = self.sample.given_to(model).replace(targets_BA=None)
        first = model(batch).logits_BA
        model(make_sample(self.spec, 3, seed=1).given_to(model).replace(targets_BA=None))
        _must(torch.equal(first, model(batch).logits_BA), "the same batch has other logits the second time")
        return "the same logits each time"

    def check_state(self) -> str:
        """Its weights go through a file into a new one."""
        model = self.model().eval()
        content = save_tensors({name: one.contiguous() for name, one in model.state_dict().items()})
        other = self.model(seed=1).eval()
        other.load_state_dict(load_tensors(content))
        batch = self.sample.given_to(model).replace(targets_BA=None)
        _must(
            torch.equal(model(batch).logits_BA, other(batch).logits_BA),
            "a copy by its state dict answers otherwise",
        )
        return f"{len(model.state_dict())} tensors through safetensors"

    def check_gradients(self) -> str:
        """Every parameter takes part in training."""
        model, criterion = self.model().train(), self._criterion()
        for seed in range(2):
            batch = make_sample(self.spec, 32, seed).given_to(model)
            for value in model.training_losses(batch, criterion):
                _must(value.ndim == 0 and bool(value.isfinite()), "a loss is no finite scalar")
                value.backward()  # type: ignore[no-untyped-call]
        trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
        idle = [name for name, one in trained.items() if one.grad is None or not one.grad.any()]
        _must(not idle, f"no gradient reaches {', '.join(idle[:5])}{' and others' if len(idle) > 5 else ''}")
        _must(all(one.grad.isfinite().all() for one in trained.values() if one.grad is not None), "not finite")
        return f"reach all {len(trained)} parameters"

    def check_learning(self) -> str:
        """It can learn 64 questions by heart, with its own optimiser at the rate that suits so few steps."""
        spec = make_spec(region_width=WIDE)
        model, criterion = self.model(spec=spec), Criterion(self.plain(spec, self.objective))
        batch = make_sample(spec, 64).given_to(model)
        optimizer = make_optimizer(model.recipe, model.parameters())
        for group in optimizer.param_groups:
            group["lr"] = max(group["lr"], 1e-2) if model.recipe.optimizer == "adamax" else max(group["lr"], 2e-3)
        best = 0.0
        for step in range(1, MOST_STEPS + 1):
            model.train()
            for value in model.training_losses(batch, criterion):
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(value)
                optimizer.step()
            if step % 20 == 0:
                best = max(best, _accuracy(model, batch))
                if best >= LEARNED:
                    return f"64 questions by heart in {step} steps"
        told = f"64 questions are not learnt by heart in {MOST_STEPS} steps"
        raise FailedCheckError(f"{told}: soft accuracy {best:.2f}")

    def check_autocast(self) -> str:
        """In bfloat16 it trains and answers as it does in float32, about."""
        model, criterion = self.model().train(), self._criterion()
        batch = self.sample.given_to(model)
        with torch.autocast("cpu", torch.bfloat16):
            for value in model.training_losses(batch, criterion):
                _must(bool(value.isfinite()), "a loss is not finite in bfloat16")
        model.eval()
        exact = model(batch.replace(targets_BA=None)).logits_BA
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(batch.replace(targets_BA=None)).logits_BA.float()
        scale = exact.abs().max().clamp(min=1)
        _must(((exact - rounded).abs().max() / scale) < 0.1, "logits in bfloat16 are others than in float32")
        return "trains and answers in bfloat16"

    def check_compile(self) -> str:
        """torch.compile captures it as one graph, with the same logits."""
        model = self.model().eval()
        batch = self.sample.given_to(model).replace(targets_BA=None)
        counter = _Counter()
        torch._dynamo.reset()
        with torch._dynamo.config.patch(allow_rnn=True):  # else it refuses every GRU, without trying
            compiled: Any = torch.compile(model, backend=counter, fullgraph=True)
            _same(compiled(batch).logits_BA, model(batch).logits_BA, "compiled and not")
        _must(counter.operations > 0, "torch.compile captured no operation")
        return f"{counter.graphs} graph of {counter.operations} operations"

    def check_devices(self) -> str:
        """On a GPU it answers as on the CPU."""
        if not torch.cuda.is_available():
            raise SkippedCheckError("there is no CUDA device here")
        model = self.model().eval()
        batch = self.sample.given_to(model).replace(targets_BA=None)
        expected = model(batch).logits_BA
        there = {name: one.cuda() for name, one in vars(batch).items() if isinstance(one, Tensor)}
        moved = batch.replace(**there, extras={name: one.cuda() for name, one in batch.extras.items()})
        _same(model.cuda()(moved).logits_BA.cpu(), expected, "on CUDA and on the CPU", 1e-2)
        return "CUDA and CPU agree"

    def _criterion(self) -> Criterion:
        return Criterion(self.plain(self.spec, self.objective))


class _Counter:
    """A backend of torch.compile that runs graphs as they are, and counts them."""

    def __init__(self) -> None:
        self.graphs = self.operations = 0

    def __call__(self, graph: Any, _: object) -> Callable[..., object]:
        self.graphs += 1
        self.operations += sum(node.op.startswith("call") for node in graph.graph.nodes)
        forward: Callable[..., object] = graph.forward
        return forward


def _check_form(output: Output, batch: Batch, model: Backbone, answers: tuple[int, int]) -> None:
    logits = {"logits_BA": output.logits_BA, "training_logits_BA": output.training_logits_BA}
    logits |= {f"auxiliary[{name!r}]": one for name, (one, _) in output.auxiliary.items()}
    for name, one in logits.items():
        if one is not None:
            _must(
                one.is_floating_point() and tuple(one.shape) == answers,
                f"{name} is {one.dtype} {list(one.shape)}; it must be floating-point {list(answers)}",
            )
            _must(bool(one.isfinite().all()), f"{name} is not finite")
    for name, one in output.penalties.items():
        _must(one.ndim == 0 and bool(one.isfinite()), f"penalties[{name!r}] is no finite scalar")
        _must(batch.targets_BA is not None, f"penalties[{name!r}] is there without targets")
    widths: Mapping[str, tuple[Tensor | None, int]] = {
        "question_features_BQ": (output.question_features_BQ, model.question_width),
        "joint_features_BH": (output.joint_features_BH, model.joint_width),
    }
    for name, (features, width) in widths.items():
        found = 0 if features is None else features.shape[1]
        _must(width in (0, found), f"{name} is {found} wide, but the class says {width}")


def _accuracy(model: nn.Module, batch: Batch) -> float:
    assert batch.targets_BA is not None
    with torch.no_grad():
        output: Output = model.eval()(batch.replace(targets_BA=None))
    return float(soft_accuracy(output.logits_BA, batch.targets_BA))


def _must(holds: bool | Tensor, told: str) -> None:
    if not holds:
        raise FailedCheckError(told)


def _same(first: Tensor, second: Tensor, when: str, close: float = CLOSE) -> None:
    difference = float((first - second).detach().abs().max())
    _must(
        difference <= close * max(1.0, float(second.detach().abs().max())),
        f"logits differ by {difference:.2g} {when}",
    )
