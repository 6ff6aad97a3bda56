"""A matrix, from a file and a command line to its runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import write_tiny
from vqabench.bench.matrix import Matrix, make_matrix, parse_grid, read_blocks, read_names, with_grid
from vqabench.config import parse_seeds
from vqabench.errors import InputError
from vqabench.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "runs", tmp_path / "data", write_tiny(tmp_path / "own"))


def matrix_of(paths: Paths, text: str | None = None, **line: Any) -> Matrix:
    """Make the matrix of a file's text and of what the command line gives."""
    path = None
    if text is not None:
        path = paths.runs.with_name("matrix.toml")
        path.write_text(text)
    return make_matrix(read_blocks(path, {"settings": {}} | line), paths)


def folders(paths: Paths, matrix: Matrix) -> list[str]:
    return [str(cell.run.folder.relative_to(paths.runs)) for cell in matrix.cells]


def options(matrix: Matrix, part: str) -> list[Mapping[str, Any]]:
    return [cell.plan.identity()["options"][part] for cell in matrix.cells]


def refused(paths: Paths, text: str | None = None, **line: Any) -> str:
    with pytest.raises(InputError) as caught:
        matrix_of(paths, text, **line)
    return str(caught.value)


def test_all_combinations_are_there_the_first_seeds_of_all_in_front(paths: Paths) -> None:
    found = matrix_of(paths, backbones=["updn", "lmh"], losses=["plain", "rescale"], seeds=(3, 4))
    assert folders(paths, found) == [
        f"digits-cp/{backbone}/{objective}-{loss}/seed-{seed}"
        for seed in (3, 4)
        for backbone, objective in (("updn", "ce"), ("lmh", "bce"))
        for loss in ("plain", "rescale")
    ]
    assert found.cells[0].name == "digits-cp updn ce-plain seed 3"
    assert all(cell.config.seeds == (cell.seed,) for cell in found.cells)


def test_data_sets_and_objectives_are_dimensions_too(paths: Paths) -> None:
    found = matrix_of(paths, backbones=["updn"], objectives=["bce", "ce"], datasets=["digits-cp", "tiny"])
    assert {(cell.config.dataset, cell.plan.objective) for cell in found.cells} == {
        (dataset, objective) for dataset in ("digits-cp", "tiny") for objective in ("bce", "ce")
    }


def test_a_file_says_what_the_command_line_can(paths: Paths) -> None:
    text = """
        backbones = ["updn", "css"]
        losses = "plain, mask"
        objectives = ["ce"]
        datasets = "tiny"
        seeds = "0-1"
        epochs = 3
        set = { recipe.lr = 0.01 }
        grid = { mask.dropout = [0.0, 0.5] }
    """
    line = matrix_of(
        paths,
        backbones=read_names("--backbones", "updn,css"),
        losses=read_names("--losses", "plain,mask"),
        objectives=["ce"],
        datasets=["tiny"],
        seeds=parse_seeds("0-1"),
        epochs=3,
        settings=with_grid({"recipe.lr": "0.01"}, parse_grid(["mask.dropout=0,0.5"]), "the command line"),
    )
    assert folders(paths, matrix_of(paths, text)) == folders(paths, line)
    assert len(line.cells) == 2 * 2 * (1 + 2)


def test_the_command_line_wins_in_every_spelling_of_an_option(paths: Paths) -> None:
    text = """
        backbones = ["updn"]
        epochs = 3
        seeds = 7
        set = { hidden = 16 }
        grid = { embedding = [8, 16], recipe.lr = [0.1, 0.2] }
    """
    line = {"seeds": (1,), "settings": {"hidden": "8", "embedding": "32", "recipe.epochs": "5"}}
    found = matrix_of(paths, text, **line)
    assert [(cell.plan.recipe.epochs, cell.plan.recipe.lr, cell.seed) for cell in found.cells] == [
        (5, 0.1, 1),
        (5, 0.2, 1),
    ]
    assert [(one["hidden"], one["embedding"]) for one in options(found, "backbone")] == [(8, 32)] * 2
    gridded = matrix_of(paths, text, settings={"hidden": ("4", "8"), "recipe.lr": "0.3", "embedding": "8"})
    assert [one["hidden"] for one in options(gridded, "backbone")] == [4, 8]
    epochs = matrix_of(paths, 'backbones = ["updn"]\ngrid = { recipe.epochs = [1, 2] }', epochs=4)
    assert [cell.plan.recipe.epochs for cell in epochs.cells] == [4]


def test_products_share_what_stands_above_them_and_win_over_it(paths: Paths) -> None:
    text = """
        losses = ["plain", "mask"]
        seeds = "0-1"
        epochs = 3
        set = { recipe.lr = 0.1, mask.dropout = 0.3 }

        [[matrix]]
        backbones = ["updn"]
        grid = { mask.dropout = [0.1, 0.2] }

        [[matrix]]
        backbones = ["css"]
        losses = ["mask"]
        seeds = 5
        set = { recipe.epochs = 2, recipe.lr = 0.2 }
    """
    found = matrix_of(paths, text)
    described = [
        (cell.plan.backbone, cell.plan.loss, cell.seed, cell.plan.recipe.epochs, cell.plan.recipe.lr)
        for cell in found.cells
    ]
    assert described == [
        ("updn", "plain", 0, 3, 0.1),
        ("updn", "mask", 0, 3, 0.1),
        ("updn", "mask", 0, 3, 0.1),
        ("css", "mask", 5, 2, 0.2),
        ("updn", "plain", 1, 3, 0.1),
        ("updn", "mask", 1, 3, 0.1),
        ("updn", "mask", 1, 3, 0.1),
    ]
    masks = [cell.plan.identity()["options"]["mask"]["dropout"] for cell in found.cells if cell.plan.loss == "mask"]
    assert masks == [0.1, 0.2, 0.3, 0.1, 0.2]


def test_settings_and_grids_of_a_part_go_to_the_strategies_that_have_it(paths: Paths) -> None:
    found = matrix_of(
        paths,
        backbones=["updn"],
        losses=["plain", "vqabench:mask", "mask+rescale"],
        settings={"mask.dropout": ("0", "0.5"), "rescale.variant": "released", "hidden": "8"},
    )
    assert [(cell.plan.loss, "rescale" in cell.plan.identity()["options"]) for cell in found.cells] == [
        ("plain", False),
        ("mask", False),
        ("mask", False),
        ("mask+rescale", True),
        ("mask+rescale", True),
    ]
    assert {one["hidden"] for one in options(found, "backbone")} == {8}


def test_two_grids_make_all_combinations(paths: Paths) -> None:
    found = matrix_of(paths, backbones=["updn"], settings={"hidden": ("4", "8"), "embedding": ("4", "8", "16")})
    pairs = [(one["hidden"], one["embedding"]) for one in options(found, "backbone")]
    assert pairs == [(hidden, embedding) for hidden in (4, 8) for embedding in (4, 8, 16)]
    assert len(set(folders(paths, found))) == 6


@pytest.mark.parametrize("label", ["small", "x" * 80])
def test_points_of_a_grid_never_share_a_folder_whatever_their_label(paths: Paths, label: str) -> None:
    values = {"hidden": ("4", "8"), "recipe.clip": ("none", "0.25")}
    found = matrix_of(paths, backbones=["updn"], label=label, settings=values)
    assert len(set(folders(paths, found))) == 4
    assert all(len(cell.plan.label) <= 80 for cell in found.cells)
    if label == "small":
        assert found.cells[0].plan.label == "small-hidden-4-recipe.clip-none"


def test_two_configurations_of_one_label_are_an_error(paths: Paths) -> None:
    text = """
        backbones = ["updn"]
        label = "small"
        [[matrix]]
        set = { hidden = 4 }
        [[matrix]]
        set = { hidden = 8 }
    """
    message = refused(paths, text)
    assert "updn ce-plain @small seed 0: two configurations share this name; give each a distinct label" in message


def test_the_same_run_asked_for_twice_is_there_once(paths: Paths) -> None:
    text = """
        backbones = ["updn"]
        [[matrix]]
        seeds = "0-1"
        [[matrix]]
        losses = ["plain", "focal"]
        seeds = "1-2"
        grid = { embedding = [300, 300] }
    """
    found = matrix_of(paths, text)
    names = [(cell.plan.loss, cell.seed) for cell in found.cells]
    assert len(set(folders(paths, found))) == len(names)
    assert sorted(names) == [("focal", 1), ("focal", 2), ("plain", 0), ("plain", 1), ("plain", 2)]


def test_undefined_combinations_are_left_out_with_the_reason(paths: Paths) -> None:
    found = matrix_of(paths, backbones=["lm", "updn"], objectives=["bce", "ce"], losses=["plain", "rescale"])
    assert len(found.cells) == 2 * 2 * 2 - 2
    (message,) = found.undefined
    assert message.startswith("lm is not defined for --objective ce")


def test_nothing_left_is_an_error_that_says_why(paths: Paths) -> None:
    message = refused(paths, backbones=["lm"], objectives=["ce"])
    assert message.startswith("nothing to train: lm is not defined for --objective ce")


def test_the_whole_matrix_is_trained_in_one_place(paths: Paths) -> None:
    found = matrix_of(paths, 'device = "cpu"\njobs = 2\n[[matrix]]\nbackbones = ["updn"]', device="auto")
    assert [(cell.config.device, cell.config.jobs) for cell in found.cells] == [("auto", 2)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no backbones given; name some"),
        ("matrix = 3", "write each product as a table [[matrix]]"),
        ("matrix = []", "write each product as a table [[matrix]]"),
        ("[matrix]\nbackbones = ['updn']", "write each product as a table [[matrix]]"),
        ("backbones = []", "backbones []: write one or more, each once"),
        ("backbones = ['updn', 'updn']", "write one or more, each once"),
        ("backbones = ['']", "write one or more, each once"),
        ("backbones = [1]", "backbones = [1]: write a list of names"),
        ("backbones = { updn = 1 }", "write a list of names"),
        ("backbone = 'updn'", "backbone: in a matrix, write backbones, a list"),
        ("backbones = ['updn']\nloss = 'plain'", "loss: in a matrix, write losses, a list"),
        ("backbone = ['updn']", "backbone: in a matrix, write backbones, a list"),
        ("backbnes = ['updn']", "unknown key 'backbnes': did you mean 'backbones'?"),
        ("backbones = ['updm']", "unknown backbone 'updm': did you mean 'updn'?"),
        ("backbones = ['updn']\nlosses = ['rescal']", "unknown loss 'rescal': did you mean 'rescale'?"),
        ("backbones = ['updn']\ndatasets = ['digits']", "unknown dataset 'digits'"),
        ("backbones = ['updn']\nobjectives = ['mse']", "--objective: unknown value 'mse'"),
        ("backbones = ['updn']\nseeds = true", "seeds = True: must be a number, a list of numbers"),
        ("backbones = ['updn']\nseeds = [0, 'a']", "write 0, or 0,1,2, or 0-4"),
        ("backbones = ['updn']\nepochs = 'many'", "epochs = 'many': must be a whole number"),
        ("backbones = ['updn']\nepochs = 0", "--epochs must be at least 1"),
        ("backbones = ['updn']\ntrack-test = 1", "track-test = 1: must be true or false"),
        ("backbones = ['updn']\nset = 3", "set = 3: must be a table"),
        ("backbones = ['updn']\nset = { hiden = 3 }", "unknown option of updn 'hiden': did you mean 'hidden'?"),
        ("backbones = ['updn']\nset = { mask.dropout = 0.5 }", "mask is not part of this run"),
        ("backbones = ['updn']\ngrid = 3", "grid: write a table, as in grid"),
        ("backbones = ['updn']\ngrid = { hidden = 8 }", "grid: hidden = 8: write a list of values"),
        ("backbones = ['updn']\ngrid = { hidden = [] }", "grid: hidden = []: write a list of values"),
        ("backbones = ['updn']\ngrid = { hidden = ['big'] }", "'big' is not int or none"),
        ("backbones = ['updn']\ngrid = { hidden = [[8]] }", "updn.hidden"),
        ("backbones = ['updn']\ngrid = { hiden = [8] }", "did you mean 'hidden'?"),
        ("backbones = ['updn']\nset.hidden = 4\ngrid.hidden = [8]", "hidden is set, and has a grid too"),
        ("backbones = ['updn']\nlabel = 'my model'", "--label 'my model'"),
        ("[[matrix]]\njobs = 2", "jobs is for the whole matrix: write it above [[matrix]]"),
        ("[[matrix]]\n[[matrix.matrix]]\n", "matrix is for the whole matrix"),
        ("[[matrix]]\nbackbone = 'updn'", "backbone: in a matrix, write backbones"),
        ("[[matrix]]\nseeds = 1", "no backbones given; name some"),
        ("backbones = ['updn']\nselect = 'best'", "--select: unknown value 'best'"),
        ("backbones = [", "not a configuration in TOML"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_that_says_what_is_right(paths: Paths, text: str, expected: str) -> None:
    message = refused(paths, text)
    assert expected in message
    assert "\n" not in message


def test_unknown_keys_are_answered_with_those_of_a_matrix(paths: Paths) -> None:
    above, below = refused(paths, "backbnes = 1"), refused(paths, "[[matrix]]\nbackbnes = 1")
    for message in (above, below):
        valid = message.partition("valid: ")[2].split(", ")
        assert {"backbones", "losses", "objectives", "datasets", "grid", "set", "seeds"} <= set(valid)
        assert not {"backbone", "loss", "objective", "dataset"} & set(valid)
    assert "jobs" in above
    assert "jobs" not in below


def test_a_grid_that_is_empty_changes_nothing(paths: Paths) -> None:
    assert len(matrix_of(paths, "backbones = ['updn']\ngrid = {}").cells) == 1


@pytest.mark.parametrize("text", ["", "updn,", "updn,,lmh", "updn, updn"])
def test_names_on_the_command_line_are_each_given_once(text: str) -> None:
    with pytest.raises(InputError, match=r"--backbones .*: write one or more, each once"):
        read_names("--backbones", text)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (["hidden"], "write KEY=VALUE"),
        (["hidden="], "--grid hidden '': write one or more"),
        (["hidden=4,4"], "--grid hidden '4,4': write one or more, each once"),
        (["hidden=4", "hidden=8"], "--grid hidden: given twice"),
    ],
)
def test_a_grid_on_the_command_line_is_checked(pairs: list[str], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_grid(pairs)
    assert expected in str(caught.value)


def test_a_split_that_a_data_set_lacks_is_an_error_before_anything_is_trained(paths: Paths) -> None:
    catalog = paths.catalog
    assert isinstance(catalog, Path)
    text = catalog.read_text()
    catalog.write_text(text[: text.index("[tiny.splits.val]")] + text[text.index("[tiny.splits.test]") :])
    message = refused(paths, backbones=["updn"], datasets=["tiny"], select="val")
    assert "--select val: tiny has no such split" in message
