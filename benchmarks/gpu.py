"""Run everything that needs a GPU, in one command: tests, plugins, training, speed, memory, kills.

`python benchmarks/gpu.py --out DIR [--wheels DIR] [--published CLONE]`. It takes at most 8 minutes on one
data-centre GPU with PyTorch, transformers, h5py, rich, typer and pytest installed, and needs no network: packages
that are missing are installed from a folder of wheels, and so are vqabench and its plugins:

    pip wheel --no-deps --wheel-dir WHEELS . plugins/*
    pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux2014_x86_64 \
        --dest WHEELS entrypoints msgspec pybase64 platformdirs

CLONE is a clone of guoyang9/class-imbalance-VQA, the published implementation, which is timed as well.

The most important steps come first. Each is a process with a time limit of its own. `DIR/gpu.json` holds the
results of the steps that have ended, `DIR/gpu.log` their output. `--device cpu --tiny` rehearses everything
without a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TextIO

ROOT = Path(__file__).parents[1]
Found = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """The folders and the device of a step."""

    device: str
    tiny: bool
    folder: Path
    """For files that are needed while it runs."""
    published: Path | None
    log: Path

    def run(self, *arguments: object, seconds: float, **environment: str) -> tuple[int, str]:
        """Run a Python program; return its exit code and its output, which is also logged."""
        command = [sys.executable, *map(str, arguments)]
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"VQABENCH_DATA": str(self.folder / "data")} | environment,
                start_new_session=True,
            )
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                code = process.wait()
            output.seek(0)
            printed = output.read()
        with self.log.open("a") as log:
            log.write(f"\n$ {' '.join(command[1:])}\n{printed}\n[exit code {code}]\n")
        return code, printed

    def json_of(self, *arguments: object, seconds: float) -> Found:
        """Run a Python program and return the JSON in its last line; raise an error if it fails."""
        code, printed = self.run(*arguments, seconds=seconds)
        try:
            found: Found = json.loads(printed.splitlines()[-1])
        except (ValueError, IndexError):
            raise SystemExit(f"exit code {code}: {' | '.join(printed.splitlines()[-3:])[-600:]}") from None
        return found


def run_tests(context: Context) -> Found:
    """Run the tests that are marked `cuda`."""
    code, printed = context.run(
        *(
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-o",
            "filterwarnings=default",
            "--durations=8",
            "tests/cuda",
        ),
        seconds=300,
    )
    lines = printed.splitlines()
    failed = [line.removeprefix("FAILED ") for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"exit code": code, "result": lines[-1] if lines else "", "failed": failed}


def check_plugins(context: Context) -> Found:
    """Check every installed plugin."""
    _, printed = context.run("-m", "vqabench", "plugins", "list", "--json", seconds=60)
    names = [plugin["name"] for plugin in json.loads(printed[printed.index("[") :])]
    names = names[:2] if context.tiny else names

    def check(name: str) -> tuple[str, int, str]:
        code, printed = context.run("-m", "vqabench", "plugins", "check", name, seconds=200, OMP_NUM_THREADS="1")
        return name, code, "; ".join(line for line in printed.splitlines() if line.startswith("FAILED"))[:500]

    with ThreadPoolExecutor(max(1, (os.cpu_count() or 2) // 2)) as pool:
        checked = list(pool.map(check, names))
    return {
        "checked": len(checked),
        "failed": {name: message or f"exit {code}" for name, code, message in checked if code},
    }


def train_digits(context: Context) -> Found:
    """Train UpDn on digits-cp, plain and re-scaled, on the GPU and on the CPU at the same time."""
    devices = dict.fromkeys([context.device, "cpu"])
    epochs = ("--epochs", "1") if context.tiny else ()
    context.run("-m", "vqabench", "data", "prepare", "digits-cp", seconds=120)

    def train(device: str, loss: str) -> Found:
        runs = context.folder / f"runs-{device}"
        began = time.monotonic()
        code, _ = context.run(
            *("-m", "vqabench", "train", "updn", "--loss", loss, "--device", device, "--runs", runs, *epochs),
            seconds=240,
            OMP_NUM_THREADS="1",
        )
        (scores,) = runs.glob(f"digits-cp/updn/ce-{loss}*/seed-0/scores.json")
        accuracy = {split: form["accuracy"]["all"] for split, form in json.loads(scores.read_text()).items()}
        return {"exit code": code, "seconds": round(time.monotonic() - began, 1), "accuracy": accuracy}

    found = {}
    with ThreadPoolExecutor() as pool:
        for loss in ("plain", "rescale"):
            for device in devices:
                found[f"{loss} on {device}"] = pool.submit(train, device, loss)
        return {name: future.result() for name, future in found.items()}


def time_training(context: Context) -> Found:
    """Time the training of full-size UpDn with features in every place, and the published implementation."""
    from benchmarks.synthetic_vqa import Sizes, make

    sizes = Sizes(512, 64, 4) if context.tiny else Sizes(32_768, 4_000, 36)
    began = time.monotonic()
    folder = make(context.folder, sizes)
    found: Found = {"questions": sizes.questions, "images": sizes.images}
    found["seconds to write and prepare"] = round(time.monotonic() - began, 1)
    write_so_far(found)
    ways = [("device", "bfloat16"), ("device", "float32"), ("host", "bfloat16"), ("disk", "bfloat16")]
    ways = [("disk", "float32")] if context.tiny else ways
    for place, precision in ways:
        arguments = ("--device", context.device, "--precision", precision, "--features", place, "--epochs", "4")
        module = ("-m", "benchmarks.timed_training", folder, *arguments)
        found[f"{place}, {precision}"] = pick(context.json_of(*module, seconds=100))
        write_so_far(found)
    if context.published:
        theirs = ("-m", "benchmarks.published", folder, "--clone", context.published, "--device", context.device)
        found["published, float32"] = pick(context.json_of(*theirs, seconds=150))
    return found


def pick(measured: Found) -> Found:
    """Return the figures of a timed training that a table shows."""
    names = ("answers_per_second", "gpu_bytes", "floor_samples_per_second", "floor_seconds")
    rates = measured["samples_per_second"]
    kept = {name: measured[name] for name in names if name in measured}
    return {"samples_per_second": round(median(rates), 1)} | kept


def look_at_steps(context: Context) -> Found:
    """Count kernels and waits of a step of full-size UpDn; time it eagerly, compiled, and as a CUDA graph."""
    from benchmarks.gpu_steps import look

    return look(context.device, tiny=context.tiny, report=write_so_far)


def time_models(context: Context) -> Found:
    """Time steps of the other first-party backbones at full size."""
    from benchmarks.gpu_steps import time_models

    return time_models(context.device, tiny=context.tiny, report=write_so_far)


@dataclass(frozen=True)
class Step:
    """A part of the measurements."""

    name: str
    work: Callable[[Context], Found]
    seconds: float


STEPS = (
    Step("tests", run_tests, 300),
    Step("plugins", check_plugins, 200),
    Step("digits", train_digits, 250),
    Step("training", time_training, 400),
    Step("step", look_at_steps, 180),
    Step("models", time_models, 180),
)
"""In order of worth. Kills, resuming and batches too large for the GPU are among the tests."""
_so_far: list[Callable[[Found], None]] = []


def write_so_far(found: Found) -> None:
    """Write the results of a step so far, in case it is ended early."""
    for write in _so_far:
        write(found)


def describe_machine(device: str) -> Found:
    import torch

    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    return {"device": name, "torch": torch.__version__, "python": platform.python_version(), "cpus": os.cpu_count()}


def install_wheels(wheels: Path, target: Path) -> None:
    """Install wheels into a folder, and make them importable here and in child processes."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
    files = sorted(map(str, wheels.glob("*.whl")))
    subprocess.run([*command, "--target", str(target), *files], check=True)
    sys.path.insert(0, str(target))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(target), os.environ.get("PYTHONPATH", "")])


def run_step(step: Step, options: argparse.Namespace, folder: Path, seconds: float) -> Found:
    """Run one step in a process of its own; return its results and how it ended."""
    result = folder / f"{step.name}.json"
    result.unlink(missing_ok=True)
    arguments = [sys.executable, "-m", "benchmarks.gpu", "--only", step.name, "--out", str(options.out)]
    arguments += ["--device", options.device, "--folder", str(folder), *(["--tiny"] * options.tiny)]
    arguments += ["--published", str(options.published)] if options.published else []
    began = time.monotonic()
    process = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        _, errors = process.communicate(timeout=seconds)
        ended = (
            "done" if process.returncode == 0 else f"failed: {(errors.strip().splitlines() or ['?'])[-1][-600:]}"
        )
        if process.returncode:
            with (options.out / "gpu.log").open("a") as log:
                log.write(errors)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        ended = f"ended after {seconds:.0f} s"
    found = json.loads(result.read_text()) if result.is_file() else {}
    return {"ended": ended, "seconds": round(time.monotonic() - began, 1)} | found


def carry_out(step: Step, options: argparse.Namespace) -> None:
    """Run one step in this process, and write its results."""
    result = options.folder / f"{step.name}.json"

    def write(found: Found) -> None:
        part = result.with_suffix(".part")
        part.write_text(json.dumps(found))
        part.replace(result)

    _so_far.append(write)
    context = Context(options.device, options.tiny, options.folder, options.published, options.out / "gpu.log")
    write(step.work(context))


def draw(report: Mapping[str, Any], stream: TextIO) -> None:
    """Print all results as one table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("step", "what", "found", title=", ".join(f"{k} {v}" for k, v in report["machine"].items()))
    for name, found in report["steps"].items():
        for key, value in found.items():
            spelled = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            table.add_row(name, key, spelled)
        table.add_section()
    Console(file=stream, width=150).print(table, markup=False)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json and gpu.log")
    parser.add_argument("--wheels", type=Path, help="folder of wheels of what is not installed")
    parser.add_argument("--published", type=Path, metavar="CLONE")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the smallest of everything: a rehearsal")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything together")
    parser.add_argument("--only", help=f"some steps, in this order: {','.join(s.name for s in STEPS)}")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    names = [step.name for step in STEPS]
    wanted = options.only.split(",") if options.only else names
    for name in wanted:
        if name not in names:
            parser.error(f"--only {name}: no such step; there are {', '.join(names)}")
    options.out.mkdir(parents=True, exist_ok=True)
    options.out = options.out.resolve()
    options.published = options.published and options.published.resolve()
    if options.folder:
        carry_out(next(step for step in STEPS if step.name == wanted[0]), options)
        return
    deadline = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        if options.wheels:
            install_wheels(options.wheels, Path(folder) / "site")
        report: Found = {"machine": describe_machine(options.device), "steps": {}}
        for step in (STEPS[names.index(name)] for name in wanted):
            left = deadline - time.monotonic()
            if left < 10:
                report["steps"][step.name] = {"ended": "not begun: no time was left"}
            else:
                report["steps"][step.name] = run_step(step, options, Path(folder), min(step.seconds, left))
            (options.out / "gpu.json").write_text(json.dumps(report, indent=2) + "\n")
            print(f"{step.name}: {report['steps'][step.name]['ended']}", file=sys.stderr)
        draw(report, sys.stdout)


if __name__ == "__main__":
    main()
