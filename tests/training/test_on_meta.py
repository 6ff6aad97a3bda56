"""A training step of the engine, with every first-party backbone and strategy, on a GPU's stand-in."""

from __future__ import annotations

from typing import cast

import pytest
import torch

from tests.small_plans import PLUGINS, plans
from vqabench.api import Backbone, Loss
from vqabench.errors import VqabenchError
from vqabench.events import ignore
from vqabench.testing.meta import META, MetaDevice, to_meta
from vqabench.testing.samples import make_sample, make_spec
from vqabench.training.backward import BackwardPass
from vqabench.training.checkpoint import State
from vqabench.training.criterion import Criterion
from vqabench.training.device import autocast
from vqabench.training.loop import train_batch
from vqabench.training.model import build_losses, build_model
from vqabench.training.session import Session


@pytest.mark.slow
@pytest.mark.parametrize("backbone", PLUGINS)
def test_a_step_has_one_device_and_waits_only_where_it_is_declared(backbone: str) -> None:
    spec = make_spec()
    stepped = 0
    for plan in plans(backbone):
        try:
            model = build_model(plan, spec).train()
        except VqabenchError:  # the mask needs question features, which some baselines do not have
            continue
        if not any(True for _ in model.parameters()):
            return
        batch = make_sample(spec, 8, odd=True).given_to(model).map(to_meta)
        declared = any(
            "synchronisation" in one.declarations for one in model.modules() if isinstance(one, Backbone)
        )
        for loss in build_losses(plan, spec):
            state = State(model.to(META), torch.nn.ModuleList([loss]).to(META), plan.recipe, seed=0)
            backward = BackwardPass(state, Session(META, ignore), autocast(META, "float32"))
            with MetaDevice() as device:
                train_batch(batch, Criterion(cast(Loss, loss)), backward, plan.recipe.clip)
            assert not device.waits or declared, (plan.loss, plan.objective, device.waits)
            stepped += 1
    assert stepped > 1
