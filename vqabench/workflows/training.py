"""`vqabench train`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Literal

from vqabench.bench.commands import Pool, Task, has_scored_answers, read_peers
from vqabench.bench.scheduler import at_most
from vqabench.config import TrainConfig
from vqabench.data.catalog.dataset import Dataset
from vqabench.data.prepare.prepared import Prepared, prepare
from vqabench.errors import InputError
from vqabench.evaluation.scores import Scores
from vqabench.events import Emit, Warn, ignore
from vqabench.files.resources import count_processors
from vqabench.paths import Paths
from vqabench.results import Run
from vqabench.training.assembly import build_model, count_parameters
from vqabench.training.checkpoint import RESTORE, load_weights
from vqabench.training.device import choose_device, is_small, threads_of_small, tune
from vqabench.training.interruption import Interruption, stop_without_parent
from vqabench.training.logs import check_ready
from vqabench.training.plan import Plan, check_splits, make_plan
from vqabench.training.processes import joined, read_local_rank
from vqabench.training.record import check_same, complete
from vqabench.training.run import find_origin, needs_origin, train_run
from vqabench.training.session import Session

IfExists = Literal["refuse", "resume", "force"]


def train(
    config: TrainConfig,
    paths: Paths,
    if_exists: IfExists = "refuse",
    emit: Emit = ignore,
    interruption: Interruption | None = None,
) -> list[Run]:
    """Train one configuration with each of its seeds; score the chosen weights on `val` and `test`.

    Where `torchrun` has started several processes, they train each run together, and the first one writes.

    Several seeds are trained at the same time if the configuration has `jobs`, or if that is faster. Each is then
    a command of its own, `vqabench train ... --resume`.

    Raises InputError where something is wrong with names, settings, data or folders, before any training;
    TrainingError where a loss is not finite. KeyboardInterrupt passes, with what was saved before; Stopped, where
    the interruption is told of a signal, with everything saved.
    """
    interruption = interruption or Interruption()
    peers = read_peers(os.environ)
    if peers is not None:
        interruption.acknowledges = True
        stop_without_parent()
    local_rank = read_local_rank()
    device = choose_device(config.device, local_rank)
    with joined(device, local_rank) as processes:
        session = Session(
            device,
            emit if processes.writes else ignore,
            config.features,
            processes,
            interruption,
            config.checkpoint_minutes,
            *(peers or (1, 1)),
        )
        runs = _train(config, paths, if_exists, session)
        return runs if processes.writes else []


def _train(config: TrainConfig, paths: Paths, if_exists: IfExists, session: Session) -> list[Run]:
    """Train all seeds, one after another or at once."""
    emit = session.emit
    dataset = paths.dataset(config.dataset)
    plan = make_plan(config, dataset.entry.recipe)
    check_splits(config, dataset)
    if session.processes.writes:
        check_ready(config.log)
    paths.check_runs()
    runs = {seed: Run(plan.folder(paths.runs, seed)) for seed in config.seeds}
    done = {seed for seed, run in runs.items() if is_done(run, if_exists, plan, seed)}
    for seed in set(config.seeds) - done:
        check_origin(config, runs[seed], seed, afresh=if_exists == "force")
    for message in warnings_of(plan):
        emit(Warn(message))
    for split in dataset.splits:
        if split not in dataset.scored:
            emit(
                f"{split} has no annotations, so it is not scored; "
                f"to answer it: vqabench predict RUN --split {split}"
            )
    prepared = _prepare(dataset, session)
    tune(session.device)
    for seed in sorted(done, key=config.seeds.index):
        check_same(runs[seed], runs[seed].read_manifest(), {"fingerprint": prepared.fingerprint})
        if session.processes.writes:
            runs[seed].tidy()
        emit(f"{runs[seed].folder}: finished already")
    left = [seed for seed in config.seeds if seed not in done]
    jobs = choose_jobs(plan, prepared, len(left), session)
    if jobs > 1:
        emit(f"{jobs} seeds at a time, each in a process of its own")
        _train_at_once(plan, paths, {seed: runs[seed] for seed in left}, jobs, session, if_exists == "force")
        return list(runs.values())
    for seed in left:
        _train_seed(plan, prepared, dataset, seed, runs[seed], session, afresh=if_exists == "force")
    return list(runs.values())


def _train_seed(
    plan: Plan, prepared: Prepared, dataset: Dataset, seed: int, run: Run, session: Session, *, afresh: bool
) -> None:
    with run.lock() if session.processes.writes else nullcontext():
        scores = train_run(plan, prepared, dataset, seed, run, session, afresh=afresh)
    session.emit(f"{run.folder}: {format_scores(scores)}")


def _train_at_once(
    plan: Plan, paths: Paths, runs: Mapping[int, Run], jobs: int, session: Session, afresh: bool
) -> None:
    """Train some seeds at the same time, each as a command of its own; a failure stops the others."""

    def end(task: Task, failure: Exception | None) -> None:
        if failure is not None:
            raise type(failure)(f"{task.name}: {failure}")

    tasks = [Task(f"seed {seed}", replace(plan.config, seeds=(seed,)), run, afresh) for seed, run in runs.items()]
    warned = set(warnings_of(plan))
    pool = Pool(paths, at_most(jobs), session.interruption, session.emit, end, warned=warned, reports_lines=True)
    try:
        pool.train(tasks)
    finally:
        for name, why in pool.lost.items():
            session.emit(Warn(f"{name}: {why}"))


def choose_jobs(plan: Plan, prepared: Prepared, runs: int, session: Session) -> int:
    """Return how many of several runs to train at the same time.

    Unless the user says otherwise: small models on a CPU train on one core each, so as many as there are cores; but
    not with features in memory, because each would have a copy.
    """
    asked = plan.config.jobs
    if session.processes.count > 1 and asked is not None and asked > 1:
        raise InputError(
            "--jobs: several processes train each seed together; for several seeds at once, start one process"
        )
    if asked is not None:
        return min(asked, runs)
    alone = session.processes.count > 1 or session.device.type != "cpu" or session.features in ("host", "device")
    if runs < 2 or alone:
        return 1
    if not is_small(count_parameters(build_model(plan, prepared.spec))):
        return 1
    return min(runs, max(1, count_processors() // threads_of_small()))


def _prepare(dataset: Dataset, session: Session) -> Prepared:
    """Make a data set ready; of several processes the first one does, and the others wait for it."""
    if not session.processes.writes:
        session.processes.wait()
    prepared = prepare(dataset, session.emit)
    if session.processes.writes:
        session.processes.wait()
    return prepared


def warnings_of(plan: Plan) -> list[str]:
    """Tell what a user should think twice about."""
    chosen = "--select test chooses the epoch on the test split; the run and every table will say so"
    return [chosen] * (plan.config.select == "test") + plan.warnings()


def check_origin(config: TrainConfig, run: Run, seed: int, *, afresh: bool) -> None:
    """Raise InputError where a run that is to start from another has need of it, and it is not there."""
    if config.start_from is not None and needs_origin(config.start_from, run, afresh):
        find_origin(config.start_from, seed)


def is_done(run: Run, if_exists: IfExists, plan: Plan, seed: int) -> bool:
    """Tell whether a run is finished, its files are whole, and it is to stay.

    Raises InputError where there is one that must not be gone on with.
    """
    if not run.has_begun() or if_exists == "force":
        return False
    if if_exists == "refuse":
        raise InputError(f"{run.folder} exists: continue it with --resume, or replace it with --force")
    manifest = complete(run.read_manifest(), plan)
    identity, origin = plan.identity(), plan.config.start_from
    identity |= {"dataset": plan.config.dataset, "backbone": plan.backbone, "loss": plan.loss, "seed": seed}
    if plan.config.precision != "auto":
        identity["precision"] = plan.config.precision
    if origin is not None and origin.exists():  # it may have been deleted since
        identity["start_from"] = str(find_origin(origin, seed).folder.resolve())
    check_same(run, manifest, identity)
    return manifest.status == "finished" and _is_scored(run)


def _is_scored(run: Run) -> bool:
    """Tell whether a run's answers and scores can be read. Raises InputError where its weights cannot."""
    if run.weights_file.is_file():  # a user short of disk may have deleted them
        run.check_file(run.weights_file, RESTORE)
        load_weights(run.weights_file)
    return has_scored_answers(run)


def format_scores(scores: Mapping[str, Scores]) -> str:
    """Give the accuracies of a run in a few words."""
    spelled = [
        f"{split} accuracy {form.accuracy['all']:.2f}"
        for split, form in scores.items()
        if form.accuracy["all"] is not None
    ]
    return ", ".join(spelled) or "done"
