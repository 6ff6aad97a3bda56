"""Whether a backbone's output has the form that the plugin API promises, in training and in answering alike."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vqabench.api import Output
from vqabench.errors import OutputError


def check_output(output: object, shape: tuple[int, int], culprit: object = None) -> None:
    """Check an output for logits of this shape: a row for each question of the batch, a column for each answer.

    Raises OutputError.
    """
    if not isinstance(output, Output):
        raise OutputError(f"a backbone must return an Output, not {_name(output)}", culprit)
    logits: dict[str, object] = {"logits_BA": output.logits_BA}
    if output.training_logits_BA is not None:
        logits["training_logits_BA"] = output.training_logits_BA
    for kind, given in (("auxiliary", output.auxiliary), ("penalties", output.penalties)):
        if not isinstance(given, Mapping):
            raise OutputError(f"its {kind} must be a mapping, not {_name(given)}", culprit)
    for name, pair in output.auxiliary.items():
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise OutputError(f"its auxiliary[{name!r}] must be a pair of logits and weight", culprit)
        logits[f"auxiliary[{name!r}]"] = pair[0]
    for name, one in logits.items():
        require_tensor(one, shape, f"its {name}", culprit)
    for name, penalty in output.penalties.items():
        require_tensor(penalty, (), f"its penalties[{name!r}]", culprit)


def require_tensor(given: object, shape: tuple[int, ...], what: str, culprit: object = None) -> None:
    """Raise OutputError unless something is a floating-point tensor of this shape."""
    if isinstance(given, Tensor) and given.is_floating_point() and tuple(given.shape) == shape:
        return
    wanted = "a scalar" if not shape else f"{list(shape)} ({shape[0]} questions, {shape[1]} answers)"
    raise OutputError(f"{what} must be a floating-point tensor, {wanted}, not {_name(given)}", culprit)


def _name(given: object) -> str:
    if not isinstance(given, Tensor):
        return f"a {type(given).__name__}"
    return f"{str(given.dtype).removeprefix('torch.')} {list(given.shape)}"
