"""Finished runs as rows: a row is one configuration, with the numbers of its seeds."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from vqabench.errors import InputError, first_few
from vqabench.evaluation.published import Published
from vqabench.evaluation.run_answers import Breakdown
from vqabench.evaluation.scores import CATEGORIES, Scores, read_scores
from vqabench.results import Manifest, Run

Key = tuple[str, str, str, str]
"""Split, metric, kind of groups (`answer-type`, `question-type`, `prior` or `subset`), and a group's name."""
Finished = tuple[Run, Manifest, dict[str, Scores]]
DAMAGED = "damaged"
MOST_DAMAGED = 20
"""Damaged runs that are named."""
MOST_TYPES = 1000
"""Question types in a table. VQA has 65; a hundred thousand would take minutes to test and to draw."""
BreakDown = Callable[[Run, Manifest, str], Breakdown]
"""Computes the breakdown of a run's answers to a split."""


@dataclass(frozen=True)
class SeedTest:
    """A gain, tested over seeds."""

    low: float
    high: float
    """The 95 % confidence interval of the gain, in points."""
    p: float
    """Two-sided, of this test alone."""
    p_holm: float
    """Corrected for all tests of its column."""
    effect: float | None
    """Hedges' g: the gain in standard deviations of a seed; None if they are 0."""
    paired: bool
    """A t-test of the differences of equal seeds; else Welch's."""


@dataclass(frozen=True)
class Cell:
    """One number of a row."""

    mean: float | None
    """Percent; None if it is undefined for a seed."""
    deviation: float | None
    """Sample standard deviation over the seeds; None for a single one."""
    values: tuple[float | None, ...] = ()
    """Percent, in the order of the row's seeds."""
    gain: float | None = None
    """In points, over the row that `Row.against` names."""
    test: SeedTest | None = None
    """Of the gain; None if it cannot be tested."""
    best: bool = False

    @property
    def ends(self) -> tuple[float, float] | None:
        """Return the ends of an error bar of one standard deviation."""
        if self.mean is None or self.deviation is None:
            return None
        return self.mean - self.deviation, self.mean + self.deviation


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
    """How the training of any seed used the test split."""
    fingerprint: str
    """Of the data."""
    plain: bool
    """Trained with the plain loss that comes with vqabench."""
    setting: str
    """All settings except the strategy: gains are over plain in the same setting."""
    runs: tuple[Run, ...]
    """In the order of the seeds."""
    manifests: tuple[Manifest, ...]
    test_questions: int | None = None
    """Number of questions of `test` that were scored; None if there is no test split."""
    cells: dict[Key, Cell] = field(default_factory=dict)
    against: str = ""
    """Title of the row that its gains are over; empty if it has none."""
    published: tuple[Published, ...] = ()
    """The paper's results on this configuration, if requested."""

    @property
    def branded(self) -> bool:
        """Return whether it is marked ‡: its numbers are not comparable with those of unmarked rows."""
        return bool(self.brands)

    @property
    def name(self) -> str:
        """Return the loss and the settings that differ from the defaults."""
        return f"{self.loss} @{self.label}" if self.label else self.loss

    @property
    def strategy(self) -> str:
        """Return the objective, the loss, and the settings that differ from the defaults."""
        return f"{self.objective}-{self.name}"

    @property
    def title(self) -> str:
        """Return the backbone and the strategy."""
        return f"{self.backbone} {self.strategy}"

    def is_called(self, name: str) -> bool:
        """Return whether a user means this row: `BACKBONE/STRATEGY`, as tables show it, or a folder of its runs."""
        # As tables show it, and as a shell takes it, without the space.
        strategies = self.strategy, self.strategy.replace(" @", "@", 1)
        if name.removesuffix("‡").strip() in [f"{self.backbone}{mark}{one}" for mark in "/ " for one in strategies]:
            return True
        folder = Path(name).resolve()
        return any(folder in (run.folder.resolve(), *run.folder.resolve().parents) for run in self.runs)

    def cell(self, split: str, group: str = "all", *, metric: str = "accuracy", by: str = "answer-type") -> Cell:
        """Return a number; an undefined one if the row lacks it."""
        return self.cells.get((split, metric, by, group), Cell(None, None))

    def domain(self, split: str) -> str:
        """Return the domain of a split with regard to the training split: `in-domain` or `out-of-domain`."""
        return self.test_domain if split == "test" else "in-domain"


def gather_rows(runs: Iterable[Run], dataset: str | None, *, by_type: bool = True) -> tuple[list[Row], list[str]]:
    """Gather finished runs into rows, plain strategies first; return them and notes on what is left out.

    Without `by_type`, there are no cells for question types, which are most of them; with it, there are cells for
    MOST_TYPES of them.
    """
    left_out: defaultdict[str, list[str]] = defaultdict(list)
    groups: defaultdict[tuple[str, ...], dict[int, Finished]] = defaultdict(dict)
    for run in runs:
        try:
            manifest = run.read_manifest()
            if dataset is not None and manifest.dataset != dataset:
                continue
            if manifest.status != "finished":
                left_out[manifest.status].append(str(run.folder))
                continue
            scores = read_scores(run)
        except InputError as error:
            # One damaged run must not hide the others.
            left_out[DAMAGED].append(str(error))
            continue
        shown = manifest.dataset, manifest.backbone, manifest.objective, manifest.loss, manifest.label
        group = groups[*shown, _format_identity(manifest)]
        if manifest.seed in group:
            left_out["another run with this seed is already in the row"].append(str(run.folder))
        else:
            group[manifest.seed] = run, manifest, scores
    questions: Counter[str] = Counter()
    for _, _, scores in (one for group in groups.values() if by_type for one in group.values()):
        for form in scores.values():
            questions |= Counter({name: scored.questions for name, scored in form.per_question_type.items()})
    # Ties are broken by name, so that the choice does not depend on the order of the runs.
    types = sorted(questions, key=lambda name: (-questions[name], name))
    if len(types) > MOST_TYPES:
        left_out[f"beyond the {MOST_TYPES:,} question types with the most questions"] = types[MOST_TYPES:]
    rows = [
        _make_row([group[seed] for seed in sorted(group)], set(types[:MOST_TYPES])) for group in groups.values()
    ]
    # Plain comes before the strategies that are compared with it.
    rows.sort(key=lambda row: (row.dataset, row.backbone, row.objective, not row.plain, row.loss, row.label))
    # Each damaged run has a line of its own; others are grouped by reason.
    damaged = [f"left out, {DAMAGED}: {message}" for message in left_out.pop(DAMAGED, ())]
    if len(damaged) > MOST_DAMAGED:
        damaged[MOST_DAMAGED:] = [f"left out, {DAMAGED}: {len(damaged) - MOST_DAMAGED} more"]
    return rows, [*damaged, *(f"left out, {why}: {first_few(which, 3)}" for why, which in left_out.items())]


def _make_row(group: Sequence[Finished], types: Set[str]) -> Row:
    manifests = tuple(manifest for _, manifest, _ in group)
    first = manifests[0]
    values: defaultdict[Key, list[float | None]] = defaultdict(lambda: [None] * len(group))
    for number, (_, _, scores) in enumerate(group):
        for split, form in scores.items():
            for category in CATEGORIES:
                values[split, "accuracy", "answer-type", category][number] = form.accuracy[category]
                values[split, "kappa", "answer-type", category][number] = form.kappa[category]
            for name in types & form.per_question_type.keys():
                values[split, "accuracy", "question-type", name][number] = form.per_question_type[name].accuracy
    return Row(
        first.dataset,
        first.backbone,
        first.objective,
        first.loss,
        first.label,
        tuple(manifest.seed for manifest in manifests),
        first.test_domain,
        tuple(dict.fromkeys(brand for manifest in manifests for brand in manifest.brands())),
        first.fingerprint,
        first.loss == "plain" and first.distributions.get("plain") == "vqabench",
        _format_setting(first),
        tuple(run for run, _, _ in group),
        manifests,
        group[0][2]["test"].questions if "test" in group[0][2] else None,
        {key: summarise(numbers) for key, numbers in values.items()},
    )


def _format_identity(manifest: Manifest) -> str:
    """Return the settings that the seeds of one row share, as JSON.

    Labels are not enough: they leave out defaults, which change between versions, and the data and initial weights.
    """
    shared = [manifest.options, manifest.bases, manifest.recipe, manifest.distributions, manifest.fingerprint]
    chosen = [manifest.select, manifest.vocabulary, manifest.precision, format_origin(manifest)]
    return json.dumps([*shared, *chosen, manifest.pretraining], sort_keys=True)


def format_origin(manifest: Manifest) -> str | None:
    """Return the name of the configuration that a run started from, if any."""
    return " ".join(Path(manifest.start_from).parts[-3:-1]) if manifest.start_from else None


def _format_setting(manifest: Manifest) -> str:
    """Return the settings that a strategy and its plain counterpart share, as JSON."""
    origin = format_origin(manifest)
    unused = "epochs" if origin else "finetune_epochs"  # a second stage belongs to the strategy
    recipe = {name: value for name, value in manifest.recipe.items() if name != unused}
    # Options of losses belong to the strategy, those of backbones to the setting.
    backbones = {label: manifest.options[label] for label in ("backbone", *manifest.bases)}
    shared = [manifest.bases, backbones, recipe, origin, manifest.select, manifest.precision, manifest.fingerprint]
    return json.dumps([*shared, manifest.pretraining], sort_keys=True)


def summarise(values: Sequence[float | None]) -> Cell:
    """Return the cell of a number with one value per seed. There is a mean only if no value is undefined."""
    defined = [value for value in values if value is not None]
    # A mean over fewer seeds than the row names would mislead.
    if not defined or len(defined) < len(values):
        return Cell(None, None, tuple(values))
    # fsum: the result does not depend on the order of the seeds.
    mean = math.fsum(defined) / len(defined)
    squares = math.fsum((value - mean) ** 2 for value in defined)
    deviation = math.sqrt(squares / (len(defined) - 1)) if len(defined) > 1 else None
    return Cell(mean, deviation, tuple(values))
