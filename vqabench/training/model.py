"""Models: built from a plan, started from other weights, or loaded from a run."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import nn

from vqabench.api import Backbone, DataSpec
from vqabench.data.prepare.prepared import Prepared
from vqabench.errors import InputError, PluginError, first_few
from vqabench.events import Emit, Warn
from vqabench.options import base_parameters
from vqabench.results import Run
from vqabench.training.checkpoint import RESTORE, restore
from vqabench.training.guard import building
from vqabench.training.plan import Part, Plan
from vqabench.training.provenance import changed_code, recall_plan


def build_model(plan: Plan, spec: DataSpec) -> Backbone:
    """Build the innermost network, its transforms around it, and the wrappers around those.

    Raises PluginError if a part cannot be built, or hides the training procedure of the one inside it.
    """
    *wrappers, innermost = plan.chain
    # A wrapper without a procedure inherits the default one, which knows nothing of its base's.
    for outer, inner in pairwise([*wrappers, *reversed(plan.transforms), innermost]):
        own = [part.kind.training_losses is not Backbone.training_losses for part in (outer, inner)]
        if own == [False, True]:
            raise PluginError(
                f"{inner.plugin.name} has a training procedure of its own, which {outer.plugin.name} around it "
                "would bypass; make it the outermost one"
            )
    model: Backbone = _build(innermost, spec)
    # The mask goes around the innermost network: a wrapper adds its bias to masked logits, and sees them.
    for transform in plan.transforms:
        model = _build(transform, spec, base=model)
    for wrapper in reversed(wrappers):
        (parameter,) = base_parameters(wrapper.kind)
        model = _build(wrapper, spec, **{parameter: model})
    return model


def build_losses(plan: Plan, spec: DataSpec) -> nn.ModuleList:
    """Build the loss of each stage."""
    by_stage = reversed(plan.losses)  # the strategy's own loss is that of the last stage
    return nn.ModuleList([_build(part, spec, objective=plan.objective) for part in by_stage])


def count_parameters(model: Backbone) -> int:
    """Count a model's parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def start_model(plan: Plan, model: Backbone) -> None:
    """Call a model's `start`, such as to load published weights. Raises PluginError if it fails."""
    with building(plan.chain[-1], "starting"):
        model.start()


def _build(part: Part, spec: DataSpec, **ready: Any) -> Any:
    with building(part, "being built"):
        return part.kind(spec, **ready, **part.options)


def load_model(run: Run, prepared: Prepared, emit: Emit, plan: Plan | None = None) -> Backbone:
    """Build a run's model with its weights; warn if the code has changed since.

    Raises InputError if the data has changed or a file is damaged.
    """
    manifest = run.read_manifest()
    if manifest.fingerprint != prepared.fingerprint:
        raise InputError(f"{run.folder}: it was trained on different data than {manifest.dataset} holds now")
    plan = plan or recall_plan(manifest)
    for message in changed_code(manifest, plan):
        emit(Warn(f"{run.folder}: was trained with {message}"))
    model = build_model(plan, prepared.spec)
    run.check_file(run.weights_file, RESTORE)
    restore(model, run.weights_file)
    return model


def adopt(model: Backbone, origin: Backbone) -> str | None:
    """Start a model from another's weights, part by part of the same class, from the innermost on.

    Return a line about the parameters that only one of them has. Raises InputError if a part has another shape,
    or they share none.
    """
    own, given = model.state_dict(), origin.state_dict()
    sources = _match(model, origin)
    if not sources:
        raise InputError("--from: its model does not fit this one: they have no part in common")
    try:
        model.load_state_dict({name: given[source] for name, source in sources.items()}, strict=False)
    except (RuntimeError, ValueError) as error:
        now = model.state_dict()  # again, because a backbone may have resized its own tensors while it was loaded
        other = [name for name, source in sources.items() if now[name].shape != given[source].shape]
        raise InputError(f"--from: its model does not fit this one: {first_few(other)}") from error
    fresh, unused = sorted(own.keys() - sources.keys()), sorted(given.keys() - sources.values())
    message = [f"{len(fresh)} are initialised anew ({first_few(fresh, 3)})"] if fresh else []
    message += [f"{len(unused)} are not used ({first_few(unused, 3)})"] if unused else []
    return f"parameters: {'; '.join(message)}" if message else None


def _parts(model: Backbone) -> list[tuple[str, type[Backbone]]]:
    """Return the backbones nested in a model, innermost first: the prefix of their parameters, and their class."""
    modules = model.named_modules()
    found = [(f"{place}." if place else "", type(part)) for place, part in modules if isinstance(part, Backbone)]
    return sorted(found, key=lambda part: -len(part[0]))


def _match(model: Backbone, origin: Backbone) -> dict[str, str]:
    """Return the names of parameters that parts of one class share: the model's own -> the origin's."""
    own, given, left = model.state_dict(), origin.state_dict(), _parts(origin)
    matched: dict[str, str] = {}
    seen: set[str] = set()
    for place, kind in _parts(model):
        # Innermost first: an outer part's own parameters are those that no inner part has claimed.
        names = [name for name in own if name.startswith(place) and name not in seen]
        seen.update(names)
        source = next((part for part in left if part[1] is kind), None)
        if source is not None:
            left.remove(source)
            pairs = ((name, source[0] + name[len(place) :]) for name in names)
            matched |= {name: stored for name, stored in pairs if stored in given}
    return matched
