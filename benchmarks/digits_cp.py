"""Every loss strategy of UpDn on `digits-cp`, both objectives, five seeds: the table of docs/digits-cp.md.

`python benchmarks/digits_cp.py --runs DIR` trains what is missing in DIR, two runs at a time with one thread
each, then prints the table in Markdown: means and deviations, and the p-value of a two-sided Welch t-test of
out-of-domain accuracy against `plain` with the same objective.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, stdev

from scipy import stats

from vqabench.evaluation.scores import Scores
from vqabench.results import find_runs, read_json

LOSSES = ("plain", "focal", "rescale", "mask", "mask+rescale")
PLAN: list[tuple[str, str, list[str]]] = [(objective, loss, []) for objective in ("ce", "bce") for loss in LOSSES]
PLAN.append(("bce", "rescale", ["--set", "rescale.variant=released"]))
COLUMNS = (("test", "accuracy"), ("val", "accuracy"), ("test", "kappa"))


def train(runs: Path, objective: str, loss: str, seed: int, more: list[str]) -> None:
    """Train one run, or go on with it, in a process of its own."""
    command = [sys.executable, "-m", "vqabench", "train", "updn", "--loss", loss, "--objective", objective]
    command += ["--seeds", str(seed), "--runs", str(runs), "--resume", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = done.stderr.strip().splitlines() or [""]
    print(lines[-1], flush=True)


def read(runs: Path) -> dict[tuple[str, str], list[dict[str, Scores]]]:
    """Gather the finished runs' scores: (objective, strategy with its label) -> a form per seed."""
    found: dict[tuple[str, str], list[dict[str, Scores]]] = {}
    for run in find_runs([runs]):
        manifest = run.read_manifest()
        if manifest.status == "finished":
            name = f"{manifest.loss} @{manifest.label}" if manifest.label else manifest.loss
            scores = read_json(run.scores_file, dict[str, Scores], "train it again")
            found.setdefault((manifest.objective, name), []).append(scores)
    return found


def describe(forms: list[dict[str, Scores]], split: str, metric: str, category: str = "all") -> str:
    values = numbers(forms, split, metric, category)
    return f"{fmean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def numbers(forms: list[dict[str, Scores]], split: str, metric: str, category: str = "all") -> list[float]:
    return [value for form in forms if (value := getattr(form[split], metric)[category]) is not None]


def print_table(found: dict[tuple[str, str], list[dict[str, Scores]]]) -> None:
    print(
        "\n| objective | loss | seeds | test Y/N | test Num. | test Other | test All | p | val All | test kappa |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for (objective, loss), forms in sorted(found.items()):
        parts = [describe(forms, "test", "accuracy", category) for category in ("yes/no", "number", "other")]
        plain = found.get((objective, "plain"), [])
        p_value = "–"
        if loss != "plain" and len(plain) > 1 and len(forms) > 1:
            both = (numbers(forms, "test", "accuracy"), numbers(plain, "test", "accuracy"))
            p_value = f"{stats.ttest_ind(*both, equal_var=False).pvalue:.1e}"
        columns = [describe(forms, split, metric) for split, metric in COLUMNS]
        cells = [objective, loss, str(len(forms)), *parts, columns[0], p_value, *columns[1:]]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    arguments, more = parser.parse_known_args()
    # The first run alone generates and prepares the data.
    train(arguments.runs, "ce", "plain", 0, more)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for seed in range(arguments.seeds):
            for objective, loss, settings in PLAN:
                pool.submit(train, arguments.runs, objective, loss, seed, [*settings, *more])
    print_table(read(arguments.runs))


if __name__ == "__main__":
    main()
