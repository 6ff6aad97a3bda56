from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vqabench.api import Recipe
from vqabench.config import make_config
from vqabench.errors import InputError, NotDefinedError
from vqabench.training.plan import Plan, make_plan, origin_name

TWO = [("train", "plain", 3), ("finetune", "rescale", 2)]


def plan(backbone: str = "updn", **given: Any) -> Plan:
    return make_plan(make_config({"backbone": backbone, "dataset": "d"} | given))


def test_a_wrapper_is_built_over_its_default_base_and_its_label_names_any_other() -> None:
    default = plan("css-lmh")
    assert [(part.label, part.plugin.name) for part in default.chain] == [
        ("", "css-lmh"),
        ("base", "lmh"),
        ("base.base", "updn"),
    ]
    assert default.label == ""
    other = plan("lmh", settings={"base": "lxmert"})
    assert [part.plugin.name for part in other.chain] == ["lmh", "lxmert"]
    assert other.label == "base=lxmert"


@pytest.mark.parametrize(
    ("given", "loss", "stages"),
    [
        ({}, "plain", [("train", "plain", 3)]),
        ({"loss": "rescale"}, "rescale", [("train", "rescale", 3)]),
        ({"loss": "mask"}, "mask", [("train", "plain", 3)]),
        (
            {"loss": "mask+rescale", "finetune_epochs": 2},
            "mask+rescale",
            [("train", "plain", 3), ("finetune", "rescale", 2)],
        ),
        (
            {"loss": "rescale+mask", "finetune_epochs": 2},
            "mask+rescale",
            [("train", "plain", 3), ("finetune", "rescale", 2)],
        ),
    ],
)
def test_a_strategy_has_one_name_and_its_stages(
    given: dict[str, Any], loss: str, stages: list[tuple[str, str, int]]
) -> None:
    made = plan(epochs=3, **given)
    assert made.loss == loss
    assert [(stage.name, stage.loss, stage.epochs) for stage in made.stages] == stages


def test_a_run_that_starts_from_another_has_the_second_stage_alone() -> None:
    made = plan(loss="mask+rescale", finetune_epochs=2, start_from=Path("runs/d/updn/ce-plain/seed-0"))
    assert [(stage.name, stage.loss, stage.epochs) for stage in made.stages] == [("finetune", "rescale", 2)]
    assert made.label == "finetune-epochs=2,from=updn.ce-plain.seed-0"


def test_the_user_changes_what_the_data_set_changes_in_the_recipe_of_the_backbone() -> None:
    own = plan("lxmert").recipe
    config = make_config({"backbone": "lxmert", "dataset": "d", "settings": {"recipe.batch_size": 7}})
    made = make_plan(config, {"batch_size": 5, "clip": 0.5})
    assert (made.recipe.batch_size, made.recipe.clip) == (7, 0.5)
    assert made.recipe.lr == own.lr != Recipe().lr
    assert made.label == "recipe.batch_size=7"  # the data set's recipe is no choice of the user


def test_a_setting_that_equals_its_default_is_not_in_the_label() -> None:
    hidden = plan().identity()["options"]["backbone"]["hidden"]
    assert plan(settings={"hidden": hidden}).label == ""
    assert plan(settings={"hidden": 8}).label == "hidden=8"
    assert plan(settings={"hidden": 8}).folder(Path("runs"), 3) == Path("runs/d/updn/ce-plain@hidden=8/seed-3")


def test_the_objective_is_the_one_that_all_parts_are_defined_for() -> None:
    assert plan().objective == "ce"
    assert plan("lmh").objective == "bce"
    assert plan(loss="equalized-focal").objective == "bce"
    with pytest.raises(NotDefinedError, match="have no objective in common"):
        plan("lmh", loss="balanced-softmax")


def test_settings_of_another_part_are_refused_with_the_name_that_was_meant() -> None:
    with pytest.raises(InputError, match=r"did you mean rescale\.variant"):
        plan(loss="rescale", settings={"variant": "paper"})
    with pytest.raises(InputError, match="mask is not part of this run"):
        plan(loss="rescale", settings={"mask.dropout": 0.1})


def test_an_origin_is_named_by_its_configuration_or_its_seed() -> None:
    assert origin_name(Path("/runs/d/updn/ce-plain")) == "updn.ce-plain"
    assert origin_name(Path("/runs/d/updn/ce-plain/seed-0")) == "updn.ce-plain.seed-0"
