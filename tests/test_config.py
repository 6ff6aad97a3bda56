from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqabench.config import (
    combine,
    make_config,
    parse_seeds,
    parse_settings,
    read_config_file,
    read_fields,
    to_table,
)
from vqabench.errors import InputError


@pytest.mark.parametrize(
    ("text", "seeds"), [("0", (0,)), ("0,2, 5", (0, 2, 5)), ("0-4", (0, 1, 2, 3, 4)), ("7,1-2", (7, 1, 2))]
)
def test_seeds_are_numbers_lists_or_ranges(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=8, unique=True))
def test_any_list_of_seeds_is_read_back(seeds: list[int]) -> None:
    assert parse_seeds(",".join(map(str, seeds))) == tuple(seeds)


@pytest.mark.parametrize("text", ["", "a", "-1", "1.5", "3-1", "0-5000", "1,1", str(2**64)])
def test_other_seeds_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="seeds"):
        parse_seeds(text)


def test_a_value_may_hold_an_equals_sign() -> None:
    assert parse_settings(["base.weights=a=b", " hidden = 3 "]) == {"base.weights": "a=b", "hidden": "3"}


@pytest.mark.parametrize("pairs", [["hidden"], ["=3"], ["a=1", "a=2"]])
def test_broken_settings_are_refused(pairs: list[str]) -> None:
    with pytest.raises(InputError, match="--set"):
        parse_settings(pairs)


def test_a_file_may_nest_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        'backbone = "updn"\nseeds = "0-1"\n[set]\nhidden = 3\n"mask.dropout" = 0.5\n[set.recipe]\nlr = 0.1\n'
    )
    config = make_config(read_config_file(path))
    assert config.seeds == (0, 1)
    assert config.settings == {"hidden": 3, "mask.dropout": 0.5, "recipe.lr": 0.1}


@pytest.mark.parametrize(
    ("text", "logs"),
    [("", ()), ("log = 'wandb'", ("wandb",)), ("log = ['tensorboard', 'wandb']", ("tensorboard", "wandb"))],
)
def test_a_file_names_one_log_or_several(tmp_path: Path, text: str, logs: tuple[str, ...]) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f'backbone = "updn"\n{text}\n')
    assert make_config(read_config_file(path)).log == logs


@pytest.mark.parametrize(
    ("logs", "message"),
    [
        (("tensorbord",), "--log: unknown value 'tensorbord': did you mean 'tensorboard'"),
        (("wandb", "wandb"), "--log wandb: given twice"),
    ],
)
def test_logs_that_are_unknown_or_named_twice_are_refused(logs: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_config({"backbone": "updn", "log": logs})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("los = 'plain'", "did you mean 'loss'"),
        ("epochs = 'three'", "epochs = 'three': must be a whole number"),
        ("track-test = 1", "must be true or false"),
        ("epochs = true", "must be a whole number"),
        ("seeds = '3-1'", "is not a range"),
        ("set = 3", "must be a table"),
        ("set = [1]", "must be a table"),
        ("set = ['hidden=3']", "must be a table"),
        ("loss = ", "not a configuration in TOML"),
    ],
)
def test_a_broken_file_names_itself_and_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"own\.toml") as raised:
        read_config_file(path)
    assert message in str(raised.value)


def test_a_table_holds_what_was_given_and_is_read_back(tmp_path: Path) -> None:
    config = make_config(
        {"backbone": "updn", "start_from": Path("a/b"), "log": ("wandb",), "settings": {"recipe.lr": 0.1}}
    )
    table = to_table(config)
    assert table == {"backbone": "updn", "set": {"recipe.lr": 0.1}, "from": "a/b", "log": ("wandb",)}
    assert make_config(read_fields(json.loads(json.dumps(table)), tmp_path)) == config


def test_the_command_line_takes_precedence_over_the_file_under_either_name() -> None:
    file = {"epochs": 5, "seeds": (1,), "settings": {"recipe.finetune_epochs": 3, "hidden": 4}}
    line = {"finetune_epochs": 2, "settings": {"recipe.epochs": "9", "hidden": "8"}}
    assert combine(file, line) == {
        "seeds": (1,),
        "finetune_epochs": 2,
        "settings": {"recipe.epochs": "9", "hidden": "8"},
    }
