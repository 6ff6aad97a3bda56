"""Checks of a backbone in training, and of the places where it runs: bfloat16, torch.compile, GPUs."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

from vqabench.api import Backbone
from vqabench.testing.backbone_checks import Build, agree, build_seeded, criterion_of, train_briefly
from vqabench.testing.checks import (
    FailedCheckError,
    SkippedCheckError,
    require,
    require_no_waits,
    require_registered,
)
from vqabench.testing.meta import MetaDevice, to_meta
from vqabench.testing.samples import make_sample, make_spec
from vqabench.training.backward import CapturedPass, is_capturable, under
from vqabench.training.criterion import soft_accuracy
from vqabench.training.optimizer import make_optimizer

NONE_AT_ALL = 1e-7
"""Gradients below this share of the model's largest count as none: rounding alone can cause them."""
LEARNED = 0.9
"""Soft accuracy on 64 questions that a model must reach."""
MOST_STEPS = 400
BRANCHES = 4
"""Seeds to try, for procedures that draw what they do with a batch."""
QUICK = {"adamax": 1e-2, "adam": 2e-3, "adamw": 2e-3, "bert-adam": 6e-4}
"""Learning rates at which MOST_STEPS are enough. bert-adam has no bias correction: its first steps are larger."""
WIDE = 128
"""Width of regions in the check `learning`: sizes of a model may depend on it."""
ROUNDED = 0.1
"""Tolerance for bfloat16, as a share of the differences between questions' logits."""
ROUNDED_AT_ALL = 0.01
"""Additional tolerance, as a share of the largest logit: bfloat16 has 8 significant bits."""


class TrainingChecks:
    """The checks of one backbone in training, under each of its objectives."""

    def __init__(self, build: Build, objectives: Sequence[str], idle: Mapping[str, str]) -> None:
        self.build, self.objectives, self.idle = build, objectives, idle
        self.spec = make_spec()
        self.sample = make_sample(self.spec, 8, odd=True)

    def check_seeds(self) -> str:
        """Check that training is the same for the same seed, and that it leaves the run's seed alone."""
        kind, generators, states = torch.get_default_dtype(), [], []
        for seed in (0, 1):
            build_seeded(self.build, self.spec, seed)
            generators.append(torch.get_rng_state())
        require(torch.get_default_dtype() == kind, f"it sets PyTorch's default type to {torch.get_default_dtype()}")
        require(not torch.equal(*generators), "it seeds PyTorch's generator, which only the run may do")
        for _ in range(2):
            model = train_briefly(build_seeded(self.build, self.spec), self.spec, self.objectives[0])
            states.append(model.state_dict())
        differ = [name for name, one in states[0].items() if not torch.equal(one, states[1][name])]
        require(
            not differ,
            f"trained twice with the same seed, {', '.join(differ[:3])} differ; use only PyTorch's generators",
        )
        return "the same result for the same seed"

    def check_gradients(self) -> str:
        """Check that every parameter has a gradient, except those declared not to."""
        for objective in self.objectives:
            model = build_seeded(self.build, self.spec).train()
            largest = {name: 0.0 for name, one in model.named_parameters() if one.requires_grad}
            require(bool(largest), "it has no parameters")
            for pattern in self.idle:
                require(any(fnmatch(name, f"*{pattern}") for name in largest), f"no parameter is named *{pattern}")
            for seed in range(2):
                batch = make_sample(self.spec, 32, seed, odd=True).given_to(model)
                for value in model.training_losses(batch, criterion_of(self.spec, objective)):
                    _take_gradient(model, value)
                    for name, one in model.named_parameters():
                        if one.grad is not None and one.numel():
                            largest[name] = max(float(one.grad.abs().max()), largest[name])
            enough = NONE_AT_ALL * max(largest.values())
            allowed = [name for name in largest for pattern in self.idle if fnmatch(name, f"*{pattern}")]
            idle = [name for name, size in largest.items() if size <= enough and name not in allowed]
            more = " and others" if len(idle) > 5 else ""
            require(not idle, f"{objective}: no gradient reaches {', '.join(idle[:5])}{more}")
        of_reason: dict[str, list[str]] = {}
        for pattern, reason in self.idle.items():
            of_reason.setdefault(reason, []).append(pattern)
        excepted = [f"; except {', '.join(patterns)}: {reason}" for reason, patterns in of_reason.items()]
        return f"reach all {len(largest)} parameters{''.join(excepted)}"

    def check_learning(self) -> str:
        """Check that it can memorise 64 questions, with its own optimiser at a higher learning rate."""
        spec = make_spec(region_width=WIDE)
        objective = "ce" if "ce" in self.objectives else self.objectives[0]
        model, criterion = build_seeded(self.build, spec), criterion_of(spec, objective)
        batch = make_sample(spec, 64).given_to(model)
        targets_BA = batch.targets_BA
        assert targets_BA is not None
        require(any(True for _ in model.parameters()), "it has no parameters")
        optimizer = make_optimizer(model.recipe, model.parameters())
        for group in optimizer.param_groups:
            group["lr"] = max(group["lr"], QUICK[model.recipe.optimizer])
        best = 0.0
        for step in range(1, MOST_STEPS + 1):
            model.train()
            for value in model.training_losses(batch, criterion):
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(value)
                optimizer.step()
            if step % 20 == 0:
                with torch.no_grad():
                    logits_BA = model.eval()(batch.replace(targets_BA=None)).logits_BA
                best = max(best, float(soft_accuracy(logits_BA, targets_BA)))
                if best >= LEARNED:
                    return f"memorised 64 questions in {step} steps"
        raise FailedCheckError(f"64 questions are not memorised in {MOST_STEPS} steps: soft accuracy {best:.2f}")

    def check_autocast(self) -> str:
        """Check that it trains in bfloat16, with logits close to those in float32."""
        model = build_seeded(self.build, self.spec).train()
        batch = self.sample.given_to(model)
        criterion = criterion_of(self.spec, self.objectives[0])
        rounded = batch.replace(regions_BRV=batch.regions_BRV.bfloat16())  # as in a run
        for value in under(bfloat16, model.training_losses(rounded, criterion)):
            if value.requires_grad:
                _take_gradient(model, value)
        model.eval()
        exact_BA = model(batch.replace(targets_BA=None)).logits_BA.detach()
        with bfloat16():
            rounded_BA = model(rounded.replace(targets_BA=None)).logits_BA.float()
        agree(exact_BA, rounded_BA, "in bfloat16", ROUNDED, ROUNDED_AT_ALL)
        return "trains and answers in bfloat16" if any(True for _ in model.parameters()) else "answers in bfloat16"

    def check_compile(self) -> str:
        """Check that torch.compile captures it as one graph, in training and in testing, with the same logits."""
        model = build_seeded(self.build, self.spec)
        batch = self.sample.given_to(model)
        operations = 0

        def count(graph: Any, _: object) -> Any:
            nonlocal operations
            operations += sum(node.op.startswith("call") for node in graph.graph.nodes)
            return graph.forward

        torch._dynamo.reset()
        with torch._dynamo.config.patch(allow_rnn=True), _silent("torch._dynamo"):
            compiled: Any = torch.compile(copy.deepcopy(model).train(), backend=count, fullgraph=True)
            compiled(batch)
            compiled = torch.compile(model.eval(), backend=count, fullgraph=True)
            tested = batch.replace(targets_BA=None)
            agree(model(tested).logits_BA, compiled(tested).logits_BA, "with and without torch.compile")
        require(operations > 0, "torch.compile captured no operation")
        recurrent = any(isinstance(part, nn.RNNBase) for part in model.modules())
        needs = "; recurrent layers need torch._dynamo.config.allow_rnn" if recurrent else ""
        return f"captured as one graph, in training and in testing: {operations} operations{needs}"

    def check_devices(self) -> str:
        """Check that all its tensors move to a GPU, and that its logits are the same there.

        Without a GPU, the meta device is used instead.
        """
        model = build_seeded(self.build, self.spec)
        require_registered(model)
        self._run_on_meta()
        if not torch.cuda.is_available():
            return "all tensors of a step are on one device (no GPU here: checked on PyTorch's meta device)"
        batch, model = self.sample.given_to(model), model.eval()
        expected_BA = model(batch.replace(targets_BA=None)).logits_BA
        moved, model = batch.map(lambda tensor: tensor.cuda()), model.cuda()
        found_BA = model(moved.replace(targets_BA=None)).logits_BA.cpu()
        agree(expected_BA, found_BA, "on CUDA and on the CPU", ROUNDED, ROUNDED_AT_ALL)
        for value in model.train().training_losses(moved, criterion_of(self.spec, self.objectives[0], "cuda")):
            if value.requires_grad:
                _take_gradient(model, value)
        return "CUDA and CPU agree"

    def check_synchronisation(self) -> str:
        """Check that neither training nor testing waits for the GPU."""
        return require_no_waits(self._run_on_meta())

    def check_capture(self) -> str:
        """Check that a `capturable` class runs the same operations for every batch; on CUDA, compare a graph."""
        parts = [part for part in build_seeded(self.build, self.spec).modules() if isinstance(part, Backbone)]
        if not all(is_capturable(part) for part in parts):
            raise SkippedCheckError("not declared `capturable`")
        for objective in self.objectives:
            first, *others = (self._operations(objective, seed) for seed in range(BRANCHES))
            for other in others:
                differ = [(a, b) for a, b in zip(first, other, strict=False) if a != b]
                require(
                    len(first) == len(other) and not differ,
                    f"{objective}: it is `capturable`, but its operations differ between batches"
                    + (f": {differ[0][0][0]}, then {differ[0][1][0]}" if differ else ""),
                )
        if torch.cuda.is_available():
            self._compare_graph()
            return "a recorded CUDA graph gives the same result as the step"
        return f"the same {len(first)} operations for every batch"

    def _operations(self, objective: str, seed: int) -> list[tuple[str, tuple[tuple[int, ...], ...]]]:
        """Return the operations of a training step on a batch drawn from the seed."""
        model = build_seeded(self.build, self.spec, seed).train()
        batch = make_sample(self.spec, 8, seed, odd=True).given_to(model)
        batch = batch.replace(extras=dict(self.sample.given_to(model).extras)).map(to_meta)
        criterion, device = criterion_of(self.spec, objective, "meta"), MetaDevice()
        model.to("meta")
        with device:
            for value in model.training_losses(batch, criterion):
                torch.autograd.backward(value)
        require(not device.waits, f"{objective}: it is `capturable`, but waits for the GPU: {device.describe()}")
        return device.operations

    def _compare_graph(self) -> None:
        """Compare a recorded step with an ordinary one, without dropout, on a batch that was not recorded."""
        criterion = criterion_of(self.spec, self.objectives[0], "cuda")
        model = build_seeded(self.build, self.spec).train().cuda()
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        recorded, other = (
            make_sample(self.spec, 8, seed)
            .batch.replace(extras=dict(self.sample.given_to(model).extras))
            .map(lambda tensor: tensor.cuda())
            for seed in range(2)
        )
        parameters = list(model.parameters())
        for _ in range(2):
            for value in model.training_losses(recorded, criterion):
                torch.autograd.backward(value)
        captured = CapturedPass(model, parameters, recorded, criterion, nullcontext)
        found = captured.compute(other, criterion)
        gradients = [None if one.grad is None else one.grad.clone() for one in parameters]
        model.zero_grad(set_to_none=True)
        for expected in model.training_losses(other, criterion):
            torch.autograd.backward(expected)
        require(
            torch.isclose(found, expected, rtol=1e-3),
            f"the loss is {found:.6g} from the recorded graph and {expected:.6g} from the step",
        )
        for parameter, gradient in zip(parameters, gradients, strict=True):
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            given = torch.zeros_like(parameter) if gradient is None else gradient
            require(
                torch.allclose(own, given, rtol=1e-2, atol=1e-5),
                "the gradients from the recorded graph differ from those of the step",
            )

    def _run_on_meta(self) -> str:
        """Train under each objective and answer on the meta device; return the lines that would wait for a GPU."""
        device = MetaDevice()
        for objective in self.objectives:
            criterion = criterion_of(self.spec, objective, "meta")
            for seed in range(BRANCHES):
                model = build_seeded(self.build, self.spec, seed).train()
                batch = self.sample.given_to(model).map(to_meta)
                model.to("meta")
                with device:
                    for value in model.training_losses(batch, criterion):
                        if value.requires_grad:
                            torch.autograd.backward(value)
                    model.eval()(batch.replace(targets_BA=None))
        return device.describe()


def bfloat16() -> torch.autocast:
    """Return a context for forward passes in bfloat16."""
    return torch.autocast("cpu", torch.bfloat16)


def _take_gradient(model: nn.Module, value: Tensor) -> None:
    """Raise FailedCheckError unless a loss is a finite scalar with finite gradients."""
    require(isinstance(value, Tensor) and value.ndim == 0, "a training loss is not a scalar tensor")
    require(bool(value.isfinite()), "a training loss is not finite")
    require(value.requires_grad, "a training loss has no gradient")
    model.zero_grad(set_to_none=True)
    torch.autograd.backward(value)
    infinite = [
        name for name, one in model.named_parameters() if one.grad is not None and not one.grad.isfinite().all()
    ]
    require(not infinite, f"the gradient of {', '.join(infinite[:5])} is not finite")


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Silence a library's log: the check itself reports failures."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
