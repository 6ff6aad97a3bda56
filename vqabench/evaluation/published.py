"""The paper's results (Guo et al., IEEE TIP 2021, Tables II to V), to compare with rows of ours.

The folder `tables` holds them number for number as printed. Rows that its authors ran are kept apart from those
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
"""Our split that they are compared with: the paper's VQA v2 val is the test split here."""
_FILES = {"accuracy.csv": "accuracy", "kappa.csv": "kappa", "ablation.csv": "accuracy"}
_COLUMNS = {"yes/no": "yes_no", "number": "number", "other": "other", "all": "all"}
USUAL_ACTIVATION = "softplus-g"
"""Of the answer mask, if a table does not name one."""


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
    """Empty if it is not stated."""
    loss: str
    options: Mapping[str, Mapping[str, str]]
    """Part -> option -> value, if the paper states it."""
    run_by: str
    """`authors`, or `reported` from another paper."""
    metric: str
    numbers: Mapping[str, float]
    """Category -> percent, if it is printed."""
    significant: frozenset[str]
    """Categories that are marked † there."""
    note: str


@dataclass(frozen=True)
class PublishedSplit:
    """A data set as published: what distinguishes its splits from others of the same name."""

    train: int
    """Questions, including those of a validation split carved from them."""
    test: int
    test_ids: str | None = None
    """`hash_ids` of the test questions, if known without the data."""

    def find_difference(self, run: Manifest, tested: int) -> str | None:
        """Return the first difference of a run's splits, `tested` questions of which were scored; None without any.

        Runs of earlier versions do not record the training questions or the ids.
        """
        # Unknown counts as equal: older runs record only the test questions.
        train = run.questions.get("train", self.train)
        if tested != self.test:
            return f"{tested:,} questions were tested, but the published test split has {self.test:,}"
        # A validation split may have been carved from the published training split.
        if self.train not in (train, train + run.questions.get("val", 0)):
            return f"{train:,} questions in train, but {self.train:,} in the published split"
        if self.test_ids and run.test_ids and run.test_ids != self.test_ids:
            return "the same number of test questions, but not the same questions"
        return None


SPLITS = {
    "vqa-cp-v2": PublishedSplit(438_183, 219_928),
    "vqa-cp-v1": PublishedSplit(
        244_547, 125_314, "862b112f52b51411f01d9aac9f747c04ab192f2cfcb88d8b8ba585a056dc08a3"
    ),
    "vqa-v2": PublishedSplit(443_757, 214_354),
}
"""The data sets of the tables."""


@cache
def read_tables() -> tuple[Published, ...]:
    """Read all rows of all tables."""
    return tuple(row for file, metric in _FILES.items() for row in _read(file, metric))


@cache
def read_published() -> tuple[Published, ...]:
    """Return the rows of all tables, without those of Table V that another table has with more categories."""
    rows = read_tables()
    # Table V repeats results of other tables, with fewer categories.
    fuller = {_name(row) for row in rows if len(row.numbers) > 1}
    return tuple(row for row in rows if len(row.numbers) > 1 or _name(row) not in fuller)


def _name(row: Published) -> tuple[object, ...]:
    about = (row.dataset, row.backbone, row.objective, row.loss, row.run_by, row.metric)
    return (*about, row.numbers.get("all"))


def _read(file: str, metric: str) -> Iterator[Published]:
    text = (resources.files("vqabench.evaluation") / "tables" / file).read_text(encoding="utf-8")
    for line in csv.DictReader(text.splitlines()):
        masks = "mask" in line["loss"].split("+")
        activation = line.get("mask_activation") or USUAL_ACTIVATION
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


def find_split(manifest: Manifest, tested: int | None) -> str | None:
    """Return the published data set whose splits a run was trained and tested on, whatever it is called here."""
    if tested is None:
        return None
    same = [name for name, split in SPLITS.items() if split.find_difference(manifest, tested) is None]
    # Without recorded counts, the number of test questions is too little evidence: the name must agree, too.
    recorded = bool(manifest.questions) or manifest.dataset in same
    return same[0] if same and recorded else None


def find_published(manifest: Manifest, dataset: str) -> tuple[Published, ...]:
    """Return the paper's results on a run's configuration, for a published data set."""
    return tuple(
        row
        for row in read_published()
        if (row.dataset, row.backbone, row.loss) == (dataset, manifest.backbone, manifest.loss)
        and row.objective in ("", manifest.objective)
        and all(
            manifest.options.get(part, {}).get(name) == value
            for part, options in row.options.items()
            for name, value in options.items()
        )
    )
