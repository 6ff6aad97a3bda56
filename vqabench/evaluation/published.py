"""What the paper has printed (Guo et al., IEEE TIP 2021, Tables II to V), to stand beside rows of ours.

The tables lie beside this module, number for number as printed. Rows that its authors ran stand apart from those
that it reports from other papers.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from vqabench.results import Manifest

SOURCE = "Guo, Nie, Cheng, Tian and Zhang, Loss Re-scaling VQA, IEEE TIP 2021"
SPLIT = "test"
"""Of ours: what the paper calls VQA v2 val is the test split here."""
_FILES = {"accuracy.csv": "accuracy", "kappa.csv": "kappa", "ablation.csv": "accuracy"}
_COLUMNS = {"yes/no": "yes_no", "number": "number", "other": "other", "all": "all"}
_USUAL_ACTIVATION = "softplus-g"
"""Of the answer mask, where a table does not name one."""


@dataclass(frozen=True)
class Published:
    """One row of a table of the paper."""

    table: str
    """`II`, `III`, `IV` or `V`."""
    dataset: str
    method: str
    """As printed."""
    backbone: str
    objective: str
    """Empty where it is not stated."""
    loss: str
    options: Mapping[str, Mapping[str, str]]
    """Part -> option -> value, as far as the paper states them."""
    run_by: str
    """`authors`, or `reported` from another paper."""
    metric: str
    numbers: Mapping[str, float]
    """Category -> percent, as far as it is printed."""
    significant: frozenset[str]
    """Categories that are marked † there."""
    note: str

    def is_of(self, run: Manifest) -> bool:
        """Tell whether it is about what a run of ours is about: data set, backbone, objective and loss."""
        same = (self.dataset, self.backbone, self.loss) == (run.dataset, run.backbone, run.loss)
        alike = all(
            run.options.get(part, {}).get(name) == value
            for part, options in self.options.items()
            for name, value in options.items()
        )
        return same and alike and self.objective in ("", run.objective)


@cache
def read_published() -> tuple[Published, ...]:
    """Read the tables. A row of Table V that another table has with its categories is left out."""
    rows = [row for file, metric in _FILES.items() for row in _read(file, metric)]
    fuller = {_name(row) for row in rows if len(row.numbers) > 1}
    return tuple(row for row in rows if len(row.numbers) > 1 or _name(row) not in fuller)


def _name(row: Published) -> tuple[object, ...]:
    about = (row.dataset, row.backbone, row.objective, row.loss, row.run_by, row.metric)
    return (*about, row.numbers.get("all"))


def _read(file: str, metric: str) -> Iterator[Published]:
    text = (resources.files("vqabench.evaluation") / "tables" / file).read_text(encoding="utf-8")
    for line in csv.DictReader(text.splitlines()):
        masks = "mask" in line["loss"].split("+")
        activation = line.get("mask_activation") or _USUAL_ACTIVATION
        marked = (line.get("significant") or "").split()
        yield Published(
            line["table"],
            line["dataset"],
            line["method"],
            line["backbone"],
            line["objective"],
            line["loss"],
            {"mask": {"activation": activation}} if masks else {},
            line["run_by"],
            metric,
            {name: float(line[column]) for name, column in _COLUMNS.items() if line.get(column)},
            frozenset(name for name, column in _COLUMNS.items() if column in marked),
            line.get("note") or "",
        )


def find_published(manifest: Manifest) -> tuple[Published, ...]:
    """Give what the paper has printed on what a run is about."""
    return tuple(one for one in read_published() if one.is_of(manifest))


def published_datasets() -> set[str]:
    """Name the data sets that the paper has results on."""
    return {one.dataset for one in read_published()}
