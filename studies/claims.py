"""Print the tables of docs/claims.md: the paper's claims, tested with finished runs on digits-cp.

`python studies/claims.py RUNS` prints them in Markdown. RUNS is the folder of the runs that these commands train:

    vqabench bench --config studies/digits_cp.toml
    vqabench bench --config studies/digits_cp_claims.toml
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from vqabench.data.batches.placement import PlacedFeatures
from vqabench.data.prepare.prepared import prepare
from vqabench.evaluation.comparison import compare, compare_cells
from vqabench.evaluation.predict import load_split, predict
from vqabench.evaluation.published import Published, find_published
from vqabench.evaluation.rows import Cell, Row
from vqabench.events import ignore
from vqabench.paths import Paths
from vqabench.reporting.grids import format_p
from vqabench.results import find_runs
from vqabench.training.model import load_model

TEST = ("test", "accuracy", "answer-type", "all")
VAL = ("val", "accuracy", "answer-type", "all")
DROPOUTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Claim:
    """A comparison of two kinds of rows with the same backbone and objective."""

    title: str
    before: Callable[[Row], bool]
    after: Callable[[Row], bool]


def matches(row: Row, loss: str, **changed: str) -> bool:
    """Return whether a row uses a strategy with the paper's options, except those in `changed` (`part_option`)."""
    given = {
        f"{part}_{name}": value for part, own in row.manifests[0].options.items() for name, value in own.items()
    }
    defaults = {"mask_activation": "softplus-g", "rescale_variant": "paper"}
    wanted = {name: changed.get(name, value) for name, value in defaults.items() if name in given} | changed
    dropout = 0.0 if row.backbone == "updn" else 0.5
    same_dropout = row.backbone == "lxmert" or given.get("mask_dropout", dropout) == dropout
    return row.loss == loss and same_dropout and all(given.get(name) == value for name, value in wanted.items())


def rows_of(loss: str, **changed: str) -> Callable[[Row], bool]:
    return lambda row: matches(row, loss, **changed)


CLAIMS = [
    Claim("Re-scaling against plain", rows_of("plain"), rows_of("rescale")),
    Claim("Re-scaling as the published code does it (bce: the positive term alone) against plain",
          rows_of("plain"), rows_of("rescale", rescale_variant="released")),
    Claim("The mask alone against plain", rows_of("plain"), rows_of("mask")),
    Claim("Mask and re-scaling against plain", rows_of("plain"), rows_of("mask+rescale")),
    Claim("Mask and re-scaling against re-scaling alone", rows_of("rescale"), rows_of("mask+rescale")),
    Claim("Softplus-G against the sigmoid, mask alone",
          rows_of("mask", mask_activation="sigmoid"), rows_of("mask")),
    Claim("Softplus-G against the sigmoid, mask and re-scaling",
          rows_of("mask+rescale", mask_activation="sigmoid"), rows_of("mask+rescale")),
    Claim("Re-scaling against focal loss", rows_of("focal"), rows_of("rescale")),
]  # fmt: skip


def print_claim(claim: Claim, rows: Iterable[Row]) -> None:
    """Print a line for every backbone and objective for which both kinds of rows exist."""
    rows = list(rows)
    print(f"\n**{claim.title}**\n")
    print(
        "| backbone | objective | seeds | paper, VQA-CP v2 | out of domain | difference | in domain | difference |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for after in filter(claim.after, rows):
        for before in filter(claim.before, rows):
            same = (before.backbone, before.objective, before.setting)
            if same == (after.backbone, after.objective, after.setting):
                print(describe(before, after))


def describe(before: Row, after: Row) -> str:
    """Return one line of the table."""
    tests = compare_cells(after, before)
    cells = [after.backbone, after.objective, str(len(after.seeds)), format_published(before, after)]
    for key in (TEST, VAL):
        one, other = before.cells[key], after.cells[key]
        cells.append(f"{format_cell(one)} → {format_cell(other)}")
        gain, test = (other.mean or 0.0) - (one.mean or 0.0), tests[key]
        tested = f" ({test.low:+.1f} to {test.high:+.1f}), p {format_p(test.p)}" if test else ""
        cells.append(f"{gain:+.2f}{tested}")
    return f"| {' | '.join(cells)} |"


def format_cell(cell: Cell) -> str:
    return f"{cell.mean:.2f}" + ("" if cell.deviation is None else f" ±{cell.deviation:.2f}")


def format_published(before: Row, after: Row) -> str:
    """Return the paper's results on VQA-CP v2 for the same backbone, objective and loss."""
    numbers = [published_all(row) for row in (before, after)]
    return "–" if None in numbers else f"{numbers[0]:.2f} → {numbers[1]:.2f}"


def published_all(row: Row) -> float | None:
    found: list[Published] = [
        one for one in find_published(row.manifests[0], "vqa-cp-v2") if one.metric == "accuracy"
    ]
    own = [one.numbers["all"] for one in found if one.run_by == "authors" and one.objective]
    return own[0] if own else None


def print_dropouts(rows: Iterable[Row]) -> None:
    """Print accuracy for each dropout of the mask (Fig. 7)."""
    print("\n**The mask's dropout (Fig. 7), UpDn, ce, seed 0**\n")
    print("| dropout | mask, out of domain | in domain | mask and re-scaling, out of domain | in domain |")
    print("|---:|---:|---:|---:|---:|")
    chosen = [row for row in rows if row.backbone == "updn" and row.objective == "ce"]
    for dropout in DROPOUTS:
        cells = [f"{dropout:.1f}"]
        for loss in ("mask", "mask+rescale"):
            found = [row for row in chosen if row.loss == loss and has_dropout(row, dropout) and 0 in row.seeds]
            own = found[0] if found else None
            cells += [
                "–" if own is None else f"{own.cells[key].values[own.seeds.index(0)]:.2f}" for key in (TEST, VAL)
            ]
        print(f"| {' | '.join(cells)} |")


def has_dropout(row: Row, dropout: float) -> bool:
    options = row.manifests[0].options["mask"]
    return bool(options["dropout"] == dropout and options["activation"] == "softplus-g")


def print_costs(rows: Iterable[Row], paths: Paths, rounds: int) -> None:
    """Print the number of parameters, and the time to answer `test` relative to plain.

    The strategies take turns, so that a change in the load of the machine affects all of them.
    """
    chosen = {row.loss: row for row in rows if (row.backbone, row.objective) == ("updn", "ce") and not row.label}
    prepared = prepare(paths.dataset("digits-cp"), lambda _: None)
    features = PlacedFeatures(prepared.features, torch.device("cpu"))
    losses = [loss for loss in ("plain", "rescale", "mask", "mask+rescale") if loss in chosen]
    models = {loss: load_model(chosen[loss].runs[0], prepared, ignore) for loss in losses}
    data = load_split(models["plain"], prepared, paths.dataset("digits-cp"), "test", features)
    times: dict[str, list[float]] = {loss: [] for loss in losses}
    for _ in range(rounds):
        for loss in losses:
            start = time.perf_counter()
            predict(models[loss], data, 128, "ce")
            times[loss].append(time.perf_counter() - start)
    print("\n**Parameters and time of answering (UpDn, ce)**\n")
    print("| strategy | parameters | weights stored | answering, against plain |")
    print("|---|---:|---:|---:|")
    for loss in losses:
        ratios = [own / plain for own, plain in zip(times[loss], times["plain"], strict=True)]
        with safe_open(chosen[loss].runs[0].weights_file, "pt") as file:
            stored = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
        parameters = chosen[loss].manifests[0].parameters
        print(f"| {loss} | {parameters:,} | {stored:,} | {statistics.median(ratios):.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    rows = compare(find_runs([arguments.runs]), "digits-cp").rows
    print_costs(rows, Paths(arguments.runs, arguments.data_dir), arguments.rounds)
    for claim in CLAIMS:
        print_claim(claim, rows)
    print_dropouts(rows)


if __name__ == "__main__":
    main()
