"""Whether a wrapper or a transform works around bases that give less, or read questions in their own way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqabench.api import Backbone
from vqabench.errors import VqabenchError
from vqabench.testing.backbones import train_briefly
from vqabench.testing.checks import FailedCheckError, Trial, describe_error
from vqabench.testing.samples import Innermost, LogitsAlone, OwnTokens, make_spec

BASES: Mapping[str, type[Innermost]] = {
    "a base that gives nothing but logits": LogitsAlone,
    "a base with a tokeniser of its own": OwnTokens,
}


class BaseChecks:
    """The check of one class that is built around a base."""

    def __init__(self, kind: type[Backbone], options: Mapping[str, Any], parameter: str, objective: str) -> None:
        self.kind, self.options, self.parameter, self.objective = kind, options, parameter, objective

    def trials(self) -> list[Trial]:
        """Return the check."""
        return [Trial("bases", self.check_bases)]

    def check_bases(self) -> str:
        """It is trained around each, or refuses it: with ValueError, or an error of vqabench.errors."""
        message = [f"{name}: {self._try(name, base)}" for name, base in BASES.items()]
        return "; ".join(message)

    def _try(self, name: str, base: type[Innermost]) -> str:
        spec = make_spec()
        try:
            model = self.kind(spec, **{self.parameter: base(spec)}, **self.options)
            train_briefly(model, spec, self.objective)
        except (ValueError, VqabenchError) as error:
            return f"refused ({error})"
        except Exception as error:  # a plugin may raise anything
            raise FailedCheckError(f"around {name}: {describe_error(error)}") from error
        return "trained"
