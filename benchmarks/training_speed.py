"""Time the training of full-size UpDn on synthetic files with the shape of VQA-CP v2, and compute the least time.

`python benchmarks/training_speed.py --folder DIR [--published CLONE] [--device cuda] [--precision float32
bfloat16] [--rounds 3] [--json FILE]`. Files are written into DIR once for each size; VQA-CP v2's own, 18 GB, is
`--questions 438183 --images 123287` (on a CPU with `--batches 60`: an epoch takes minutes). Every training is a
process of its own and trains two epochs. The second is timed, without validating and saving. With a clone of
guoyang9/class-imbalance-VQA, the published implementation and ours alternate, in float32. `--scaling` varies
one size at a time.

It prints medians over the rounds. `ready` is the time when the first batch is requested, `own memory` the
memory of a process beyond the page cache, `mapped` its part of the page cache, both until it has trained.

The floor: a step cannot take less time than its multiplications at the rate of the attention layer's matrix
product alone, nor than its traffic (features, parameters, gradients, moments) at the rate of a plain copy, both
measured on the same device, in the same precision, by the same process.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.published import what_is_missing
from benchmarks.synthetic_vqa import Sizes, make

Measured = dict[str, Any]
SECONDS_BETWEEN_LOOKS = 0.1
PUBLISHED = "published, float32"
FULL_EPOCH = 438_183
"""Training questions of VQA-CP v2."""
COLUMNS = {
    "samples_per_second": ("samples/s", 1, 1),
    "epoch_minutes": ("full epoch, min", 1, 1),
    "floor_samples_per_second": ("floor", 1, 1),
    "percent_of_floor": ("% of it", 1, 0),
    "answers_per_second": ("answers/s", 1, 1),
    "seconds_to_ready": ("ready, s", 1, 1),
    "seconds_to_first_step": ("first step, s", 1, 1),
    "own_bytes": ("own memory, MB", 1e-6, 0),
    "file_bytes": ("mapped, MB", 1e-6, 0),
    "gpu_bytes": ("GPU, MB", 1e-6, 0),
}
"""What is measured -> its heading, scale, and decimals."""


class Memory:
    """Sample the memory of a process ten times per second: its own, and the files that it maps."""

    def __init__(self, pid: int) -> None:
        self.status = Path(f"/proc/{pid}/status")
        self.looks: list[tuple[float, int, int]] = []
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self) -> None:
        while kilobytes := self._look():
            own = kilobytes["RssAnon:"] + kilobytes["RssShmem:"]
            self.looks.append((time.monotonic(), 1024 * own, 1024 * kilobytes["RssFile:"]))
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _look(self) -> dict[str, int]:
        try:
            lines = [line.split() for line in self.status.read_text().splitlines() if line.startswith("Rss")]
        except OSError:  # it has ended
            return {}
        return {name: int(number) for name, number, _ in lines}

    def peaks(self, until: float) -> Measured:
        self.thread.join()
        seen = [look for look in self.looks if look[0] <= until]
        return {"own_bytes": max(look[1] for look in seen), "file_bytes": max(look[2] for look in seen)}


def run(module: str, *arguments: object) -> Measured:
    """Run a program that prints JSON; add the time to its first step, and its peak memory."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        memory = Memory(process.pid)
        process.wait()
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{errors.read()}")
        found: Measured = json.loads(output.read().splitlines()[-1])
    for name in ("ready", "first_step"):
        if f"{name}_at" in found:
            found[f"seconds_to_{name}"] = found[f"{name}_at"] - start
    if "trained_at" in found:
        found |= memory.peaks(found["trained_at"])
    return found


def take_turns(folder: Path, options: argparse.Namespace) -> dict[str, list[Measured]]:
    """Train in every way once per round, so that a change in the speed of the machine affects all of them."""
    found: dict[str, list[Measured]] = {}
    for number in range(options.rounds):
        for precision in options.precision:
            few = ("--batches", options.batches) if options.batches else ()
            measured = run("timed_training", folder, "--device", options.device, "--precision", precision, *few)
            found.setdefault(f"vqabench, {precision}", []).append(measured)
        if options.published:
            measured = run("published", folder, "--clone", options.published, "--device", options.device)
            found.setdefault(PUBLISHED, []).append(measured)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    return found


def summarise(rounds: Sequence[Measured]) -> Measured:
    """Return medians over the rounds, and the range of the rates."""
    rates = [rate for measured in rounds for rate in measured["samples_per_second"]]
    single = [name for name in COLUMNS if name != "samples_per_second" and rounds[0].get(name)]
    summary = {name: median(r[name] for r in rounds) for name in single}
    summary |= {"samples_per_second": median(rates), "range": [min(rates), max(rates)]}
    summary["epoch_minutes"] = FULL_EPOCH / median(rates) / 60
    if "floor_samples_per_second" in rounds[0]:
        shares = [median(r["samples_per_second"]) / r["floor_samples_per_second"] for r in rounds]
        summary["percent_of_floor"] = 100 * median(shares)
    return summary


def draw(title: str, summaries: Mapping[str, Measured], baseline: str) -> Table:
    table = Table(title=f"{title}; ratio to {baseline}")
    table.add_column(no_wrap=True)
    shown = [name for name in COLUMNS if any(name in one for one in summaries.values())]
    for head in (*(COLUMNS[name][0] for name in shown), "from–to", "ratio"):
        table.add_column(head, justify="right", min_width=5)
    for name, one in summaries.items():
        numbers = [f"{COLUMNS[key][1] * one[key]:.{COLUMNS[key][2]}f}" if key in one else "" for key in shown]
        ratio = one["samples_per_second"] / summaries[baseline]["samples_per_second"]
        table.add_row(name, *numbers, "–".join(f"{rate:.1f}" for rate in one["range"]), f"{ratio:.2f}")
    return table


def describe_floor(name: str, rounds: Sequence[Measured]) -> str:
    step, last = rounds[0]["step"], rounds[-1]
    parts = [f"{what} {1000 * seconds:.0f} ms" for what, seconds in last["floor_seconds"].items()]
    flops = f"{step['flops'] / 1e9:.0f} GFLOP at {last['rates']['flops'] / 1e9:.0f} GFLOP/s"
    traffic = f"{step['memory_bytes'] / 1e9:.2f} GB at {last['rates']['copied_bytes'] / 1e9:.1f} GB/s"
    return f"{name}: a step of {step['questions']} takes at least {flops} and {traffic}: {', '.join(parts)}"


def vary(options: argparse.Namespace) -> dict[str, list[Measured]]:
    """Train with one size changed at a time."""
    base = Sizes(options.questions, options.images, options.regions)
    # As many bytes with 100 regions, so that both fit the page cache, or neither does.
    regions = replace(base, regions=100, images=base.images * base.regions // 100)
    plan = [
        (base, 512),
        (base, 128),
        (base, 1024),
        (regions, 512),
        (replace(base, questions=2 * base.questions), 512),
    ]
    found = {}
    for sizes, batch_size in plan:
        folder = make(options.folder, sizes)
        arguments = ("--device", options.device, "--precision", options.precision[0], "--batch-size", batch_size)
        name = f"{sizes.questions} questions, {sizes.regions} regions, batch {batch_size}"
        found[name] = [run("timed_training", folder, *arguments)]
        print(name, file=sys.stderr)
    return found


def describe_machine(device: str, measured: Measured) -> Measured:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processors = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    names = ("torch", "numpy", "vqabench")
    return {
        "processor": processors[0] if processors else platform.processor(),
        "processors": len(processors),
        "threads": measured["threads"],
        "device": measured["device"] if device != "cpu" else "cpu",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in names},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the files, on the disk to be measured")
    parser.add_argument("--questions", type=int, default=4_096)
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--regions", type=int, default=36)
    parser.add_argument("--published", type=Path, metavar="CLONE")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, help="time so many of an epoch only, and answer nothing")
    parser.add_argument("--scaling", action="store_true", help="vary one size at a time instead, in one precision")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.published and (missing := what_is_missing(options.published)):
        parser.error(missing)
    sizes = Sizes(options.questions, options.images, options.regions)
    console = Console(width=None if sys.stdout.isatty() else 200)
    rounds = vary(options) if options.scaling else take_turns(make(options.folder, sizes), options)
    names = list(rounds)
    machine = describe_machine(options.device, rounds[names[0]][0])
    summaries = {name: summarise(several) for name, several in rounds.items()}
    console.print(machine)
    for name in names:
        if name != PUBLISHED:
            console.print(describe_floor(name, rounds[name]), highlight=False)
    title = f"{sizes.questions} questions, {sizes.images} images, {sizes.regions} regions"
    console.print(draw(title, summaries, PUBLISHED if PUBLISHED in rounds else names[0]))
    report = {"sizes": asdict(sizes), "machine": machine, "summaries": summaries, "rounds": rounds}
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
