"""`vqabench train`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace

from vqabench.bench.child_runs import Pool, Task, read_peers
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
from vqabench.training.device import choose_device, is_small, threads_of_small, tune
from vqabench.training.interruption import Interruption, stop_without_parent
from vqabench.training.logs import check_ready
from vqabench.training.model import build_model, count_parameters
from vqabench.training.plan import Plan, check_splits, make_plan
from vqabench.training.processes import joined, read_local_rank
from vqabench.training.provenance import check_same
from vqabench.training.resume import IfExists as IfExists
from vqabench.training.resume import begin
from vqabench.training.run import train_run
from vqabench.training.session import Job, Session


def train(
    config: TrainConfig,
    paths: Paths,
    if_exists: IfExists = "refuse",
    emit: Emit = ignore,
    interruption: Interruption | None = None,
) -> list[Run]:
    """Train one configuration with each of its seeds; score the chosen weights on `val` and `test`.

    If `torchrun` has started several processes, they train each run together, and the first one writes.

    Several seeds are trained at the same time if the configuration has `jobs`, or if that is faster. Each is then
    a command of its own, `vqabench train ... --resume`.

    Raises InputError if something is wrong with names, settings, data or folders, before any training;
    TrainingError if a loss is not finite. KeyboardInterrupt passes, with what was saved before; Stopped, if the
    interruption has recorded a signal, with everything saved.
    """
    interruption = interruption or Interruption()
    peers = read_peers(os.environ)
    if peers is not None:
        interruption.acknowledges = True
        stop_without_parent()
    local_rank = read_local_rank()
    device = choose_device(config.device, local_rank)
    with joined(device, local_rank) as processes:
        report = emit if processes.writes else ignore
        session = Session(device, report, config.features, processes, interruption, config.checkpoint_minutes)
        session.sharers, session.gpus = peers or (1, 1)
        dataset = paths.dataset(config.dataset)
        plan = make_plan(config, dataset.entry.recipe)
        check_splits(config, dataset)
        if processes.writes:
            check_ready(config.log)
        paths.check_runs()
        runs = {seed: Run(plan.folder(paths.runs, seed)) for seed in config.seeds}
        starts = {seed: begin(plan, seed, run, if_exists) for seed, run in runs.items()}
        left = [seed for seed, start in starts.items() if start.kind != "finished"]
        for seed in left if processes.writes else ():
            paths.check_writable(runs[seed])
        prepared = _prepare(plan, dataset, session)
        tune(device)
        for seed in [seed for seed in config.seeds if seed not in left]:
            _keep_finished(runs[seed], prepared, session)
        jobs = choose_jobs(plan, prepared, len(left), session)
        if jobs > 1:
            session.emit(f"{jobs} seeds at a time, each in a process of its own")
            _train_at_once(plan, paths, {seed: runs[seed] for seed in left}, jobs, session, if_exists == "force")
            left = []
        for seed in left:
            job = Job(plan, seed, runs[seed], dataset, prepared, session)
            with job.run.lock() if processes.writes else nullcontext():
                # Again, now that the run is locked: another process may have trained it in the meantime.
                start = begin(plan, seed, job.run, if_exists)
                scores = None if start.kind == "finished" else train_run(job, start)
            if scores is None:
                _keep_finished(job.run, prepared, session)
            else:
                session.emit(f"{job.run.folder}: {format_scores(scores)}")
        return list(runs.values()) if processes.writes else []


def _prepare(plan: Plan, dataset: Dataset, session: Session) -> Prepared:
    """Warn the user, and make the data set ready: of several processes the first one does, the others wait."""
    for message in plan.warnings():
        session.emit(Warn(message))
    for split in dataset.splits:
        if split not in dataset.scored:
            session.emit(
                f"{split} has no annotations, so it is not scored; "
                f"to answer it: vqabench predict RUN --split {split}"
            )
    if not session.processes.writes:
        session.processes.wait()
    prepared = prepare(dataset, session.emit)
    if session.processes.writes:
        session.processes.wait()
    return prepared


def _keep_finished(run: Run, prepared: Prepared, session: Session) -> None:
    """Keep a finished run as it is. Raises InputError if its data has changed since."""
    check_same(run, run.read_manifest(), {"fingerprint": prepared.fingerprint})
    if session.processes.writes:
        run.tidy()
    session.emit(f"{run.folder}: finished already")


def _train_at_once(
    plan: Plan, paths: Paths, runs: Mapping[int, Run], jobs: int, session: Session, afresh: bool
) -> None:
    """Train some seeds at the same time, each as a command of its own; a failure stops the others."""

    def end(task: Task, failure: Exception | None) -> None:
        if failure is not None:
            raise type(failure)(f"{task.name}: {failure}")

    tasks = [Task(f"seed {seed}", replace(plan.config, seeds=(seed,)), run, afresh) for seed, run in runs.items()]
    warned = set(plan.warnings())
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
    if runs < 2 or alone or not is_small(count_parameters(build_model(plan, prepared.spec))):
        return 1
    return min(runs, max(1, count_processors() // threads_of_small()))


def format_scores(scores: Mapping[str, Scores]) -> str:
    """Return the accuracies of a run in a few words."""
    found = {split: form.accuracy["all"] for split, form in scores.items()}
    return ", ".join(f"{split} accuracy {x:.2f}" for split, x in found.items() if x is not None) or "done"
