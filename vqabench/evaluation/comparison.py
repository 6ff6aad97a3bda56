"""Runs side by side: one row per configuration, means and deviations over its seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vqabench.errors import InputError, first_few
from vqabench.evaluation.scores import CATEGORIES, Scores, read_scores
from vqabench.results import Manifest, Run

METRICS = ("accuracy", "kappa")
DECIMALS = 2
"""Of a number in a table: what looks the same there is as good."""


@dataclass(frozen=True)
class Cell:
    """One number of a row."""

    mean: float | None
    """Percent; None where no seed defines it."""
    deviation: float | None
    """Sample standard deviation over the seeds; None for a single one."""
    gain: float | None = None
    """Against the plain runs of the same backbone and objective in the same setting."""
    best: bool = False


Key = tuple[str, str, str, str]
"""Split, metric, `answer-type` or `question-type`, and the name of one."""


@dataclass
class Row:
    """One configuration."""

    dataset: str
    backbone: str
    objective: str
    loss: str
    label: str
    seeds: tuple[int, ...]
    test_domain: str
    """`out-of-domain` or `in-domain`."""
    brands: tuple[str, ...]
    """What the training of some seed took from the test split."""
    fingerprint: str
    """Of the data."""
    plain: bool
    """Trained with the plain loss that comes with vqabench."""
    setting: str
    """Everything but the strategy that decides what was trained: a gain is against plain in the same setting."""
    cells: dict[Key, Cell] = field(default_factory=dict)

    @property
    def branded(self) -> bool:
        """Tell whether its numbers are not comparable with honest ones."""
        return bool(self.brands)

    @property
    def name(self) -> str:
        """Give the loss and what differs from the defaults."""
        return f"{self.loss} @{self.label}" if self.label else self.loss


@dataclass(frozen=True)
class Comparison:
    """Rows in the order of a table, and what its reader must know."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def compare(runs: Iterable[Run], dataset: str | None = None) -> Comparison:
    """Gather finished runs into rows. Runs that have not finished, or are damaged, become notes.

    Raises InputError where there is no finished run.
    """
    groups: dict[tuple[str, ...], list[tuple[Manifest, dict[str, Scores]]]] = {}
    left_out: dict[str, list[str]] = {}
    for run in runs:
        loaded = _load(run, dataset, left_out)
        if loaded is not None:
            manifest = loaded[0]
            group = groups.setdefault((*_name(manifest), _spell_identity(manifest)), [])
            if manifest.seed in (other.seed for other, _ in group):
                left_out.setdefault("its seed stands in the row already", []).append(str(run.folder))
            else:
                group.append(loaded)
    notes = [f"left out, {why}: {first_few(which, 3)}" for why, which in left_out.items()]
    if not groups:
        which = f" of {dataset}" if dataset else ""
        raise InputError("; ".join([f"no finished run{which}", *notes]))
    rows = [_make_row(group) for group in groups.values()]
    rows.sort(key=lambda row: (row.dataset, row.backbone, row.objective, not row.plain, row.loss, row.label))
    _add_gains(rows)
    _mark_best(rows)
    return Comparison(tuple(rows), (*notes, *_warn(rows)))


def _load(
    run: Run, dataset: str | None, left_out: dict[str, list[str]]
) -> tuple[Manifest, dict[str, Scores]] | None:
    try:
        manifest = run.read_manifest()
        if dataset is not None and manifest.dataset != dataset:
            return None
        if manifest.status != "finished":
            left_out.setdefault(manifest.status, []).append(str(run.folder))
            return None
        return manifest, read_scores(run)
    except InputError as error:
        left_out.setdefault("damaged", []).append(str(error))
        return None


def _make_row(group: Sequence[tuple[Manifest, dict[str, Scores]]]) -> Row:
    first = group[0][0]
    manifests = [manifest for manifest, _ in group]
    values: dict[Key, list[float | None]] = {}
    for _, scores in group:
        for split, form in scores.items():
            for key, value in _flatten(split, form):
                values.setdefault(key, []).append(value)
    return Row(
        first.dataset,
        first.backbone,
        first.objective,
        first.loss,
        first.label,
        tuple(sorted(manifest.seed for manifest in manifests)),
        first.test_domain,
        tuple(dict.fromkeys(brand for manifest in manifests for brand in manifest.brands())),
        first.fingerprint,
        first.loss == "plain" and first.distributions.get("plain") == "vqabench",
        _spell_setting(first),
        {key: _summarise(numbers) for key, numbers in values.items()},
    )


def _name(manifest: Manifest) -> tuple[str, ...]:
    return manifest.dataset, manifest.backbone, manifest.objective, manifest.loss, manifest.label


def _spell_identity(manifest: Manifest) -> str:
    """Spell what seeds of one row share: a label leaves defaults out, and they change, as data and weights do."""
    shared = [manifest.options, manifest.bases, manifest.recipe, manifest.distributions, manifest.fingerprint]
    return json.dumps([*shared, manifest.pretraining], sort_keys=True)


def _spell_setting(manifest: Manifest) -> str:
    """Spell what a strategy and its plain counterpart share; a second stage is the strategy's own."""
    origin = Path(manifest.start_from).parts[-3:-1] if manifest.start_from else None
    unused = "epochs" if origin else "finetune_epochs"
    recipe = {name: value for name, value in manifest.recipe.items() if name != unused}
    backbones = {label: manifest.options[label] for label in ("backbone", *manifest.bases)}
    shared = [manifest.bases, backbones, recipe, origin, manifest.select, manifest.precision, manifest.fingerprint]
    return json.dumps([*shared, manifest.pretraining], sort_keys=True)


def _flatten(split: str, form: Scores) -> Iterable[tuple[Key, float | None]]:
    for category in CATEGORIES:
        yield (split, "accuracy", "answer-type", category), form.accuracy[category]
        yield (split, "kappa", "answer-type", category), form.kappa[category]
    for question_type, scored in form.per_question_type.items():
        yield (split, "accuracy", "question-type", question_type), scored.accuracy


def _summarise(numbers: Sequence[float | None]) -> Cell:
    """A mean stands only where every seed defines the number."""
    defined = [number for number in numbers if number is not None]
    if len(defined) < len(numbers):
        return Cell(None, None)
    return Cell(statistics.fmean(defined), statistics.stdev(defined) if len(defined) > 1 else None)


def _add_gains(rows: Sequence[Row]) -> None:
    """Compare each row with the plain one of its backbone and objective, trained in the same setting."""
    plain = {(row.dataset, row.backbone, row.objective, row.setting): row for row in rows if row.plain}
    for row in rows:
        base = plain.get((row.dataset, row.backbone, row.objective, row.setting))
        if base is None or row.plain:
            continue
        for key, cell in row.cells.items():
            other = base.cells.get(key)
            if other is not None and other.mean is not None and cell.mean is not None:
                row.cells[key] = Cell(cell.mean, cell.deviation, cell.mean - other.mean)


def _mark_best(rows: Sequence[Row]) -> None:
    """Mark the highest mean of each column within a data set, of honest runs."""
    for dataset in {row.dataset for row in rows}:
        within = [row for row in rows if row.dataset == dataset and not row.branded]
        if len(within) < 2:
            continue
        for key in {key for row in within for key in row.cells}:
            cells = [
                (row, row.cells[key]) for row in within if key in row.cells and row.cells[key].mean is not None
            ]
            highest = max((cell.mean or 0.0 for _, cell in cells), default=0.0)
            for row, cell in cells:
                if round(cell.mean or 0.0, DECIMALS) == round(highest, DECIMALS):
                    row.cells[key] = Cell(cell.mean, cell.deviation, cell.gain, best=True)


def _warn(rows: Sequence[Row]) -> list[str]:
    brands: dict[str, list[str]] = {}
    for row in rows:
        for brand in row.brands:
            brands.setdefault(brand, []).append(f"{row.backbone} {row.objective}-{row.name}")
    notes = [
        f"‡ {f'{first_few(which, 3)}: ' if len(brands) > 1 else ''}{brand}: not comparable with honest runs"
        for brand, which in brands.items()
    ]
    for dataset in sorted({row.dataset for row in rows}):
        prints = {row.fingerprint for row in rows if row.dataset == dataset}
        if len(prints) > 1:
            notes.append(f"{dataset}: these runs saw {len(prints)} different states of the data")
    names = [(row.dataset, row.backbone, row.objective, row.name) for row in rows]
    if len(set(names)) < len(names):
        notes.append(
            "rows of one name differ in data, options or defaults that their labels do not show: see their run.json"
        )
    if any(len(row.seeds) == 1 for row in rows):
        notes.append("a single seed shows no spread: train several before you claim a difference")
    return notes
