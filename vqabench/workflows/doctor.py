"""`vqabench doctor`: check this machine, the installation and the data.

The checks are independent. One that fails, for instance because PyTorch is broken, is a finding too.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import shlex
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vqabench import __version__
from vqabench.errors import counted, first_few
from vqabench.plugin_source import SourceError, read_class

if TYPE_CHECKING:
    from vqabench.data.catalog.dataset import Dataset
    from vqabench.paths import Paths

State = Literal["ok", "note", "broken"]
"""`note`: works, but not as well as it could."""
LITTLE_DISK = 200_000_000
"""Bytes: `digits-cp` with a run takes a third of it."""
LITTLE_MEMORY = 1_000_000_000
"""Bytes: `digits-cp` takes a little over half of it."""
SHOWN_VERSIONS = ("torch", "numpy", "h5py", "transformers")
COMPILED = {"torch": "torch", "numpy": "numpy", "h5py": "h5py", "scipy": "scipy", "sklearn": "scikit-learn"}
"""Modules that may be installed and still fail to load, for lack of a shared library -> their distributions."""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    what: str
    state: State
    found: str
    fix: str = ""
    """The command or setting that fixes it."""


def examine(runs: Path, data: Path | None, catalog: Sequence[Path] | None) -> Iterator[Finding]:
    """Check this machine, the installation and the data, one finding at a time."""
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("versions", check_versions),
        ("device", check_device),
        ("processors", check_processors),
        ("memory", check_memory),
        ("data folder", lambda: check_data_folder(data)),
        ("runs folder", lambda: [check_folder("runs folder", runs, "--runs DIR")]),
        ("plugins", check_plugins),
        ("data sets", lambda: check_datasets(data, catalog)),
    ]
    for what, check in checks:
        try:
            yield from check()
        except ImportError as error:
            package = (error.name or "").partition(".")[0] or "vqabench"
            yield Finding(what, "broken", f"cannot be checked: {error}", f"pip install --force-reinstall {package}")
        except (Exception, SystemExit) as error:  # a broken package may raise anything, or exit
            yield Finding(what, "broken", f"cannot be checked: {type(error).__name__}: {error}")


def check_versions() -> Iterator[Finding]:
    """Check that every package that vqabench needs is installed, in a version that is new enough."""
    shown = {"vqabench": __version__, "Python": platform.python_version()}
    shown |= {name: version for name in SHOWN_VERSIONS if (version := _version(name))}
    yield Finding("versions", "ok", ", ".join(f"{name} {version}" for name, version in shown.items()))
    for requirement in metadata.requires("vqabench") or []:
        match = re.fullmatch(r"([\w.-]+)>=([\d.]+)", requirement)
        if match is None:  # of an extra
            continue
        name, least = match.groups()
        version = _version(name)
        if version is None or _release(version) < _release(least):
            found = f"{name} is not installed" if version is None else f"{name} {version} is too old"
            yield Finding("versions", "broken", f"{found}; needs {least} or newer", f"pip install '{requirement}'")
    for module, distribution in COMPILED.items():
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # a broken package may raise anything, or exit
            found = f"{module} cannot be imported: {type(error).__name__}: {error}"
            yield Finding("versions", "broken", found, f"pip install --force-reinstall {distribution}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _release(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])[:3]))


def check_device() -> Iterator[Finding]:
    """Check which device and which precision `auto` chooses, and why not a GPU."""
    import torch

    from vqabench.files.resources import format_bytes
    from vqabench.training.device import choose_device, choose_precision

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            yield Finding(
                "device", "ok", f"cuda:{index}, {name}, {format_bytes(free)} of {format_bytes(total)} free"
            )
    else:
        supported = torch.version.cuda is not None or torch.version.hip is not None
        gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
        yield explain_no_gpu(supported, gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
    precision = choose_precision("auto", choose_device("auto"))
    slow = " (this processor has no bfloat16 instructions, which would be about twice as fast)"
    yield Finding("precision", "ok", precision if precision == "bfloat16" else f"{precision}{slow}")


def explain_no_gpu(supported: bool, gpus: int, visible: str | None) -> Finding:
    """Return why PyTorch offers no GPU.

    `supported` is whether PyTorch was built for GPUs, `visible` is CUDA_VISIBLE_DEVICES.
    """
    if gpus == 0:
        return Finding("device", "ok", "cpu; this machine has no NVIDIA GPU")
    message = "this machine's GPU" if gpus == 1 else f"this machine's {gpus} GPUs"
    if visible is not None and visible.strip() in ("", "-1"):
        found = f"cpu; CUDA_VISIBLE_DEVICES={visible!r} hides {message}"
        return Finding("device", "note", found, "unset CUDA_VISIBLE_DEVICES")
    if not supported:
        found = f"cpu; PyTorch was built without CUDA and cannot use {message}"
        return Finding("device", "broken", found, "pip install --force-reinstall torch")
    import torch

    reason = ""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except Exception as error:  # its message is the reason
        reason = f": {' '.join(str(error).split())}"
    return Finding("device", "broken", f"cpu; PyTorch cannot use {message}{reason}", "nvidia-smi")


def check_processors() -> Iterator[Finding]:
    """Check how many processors there are, and whether as many threads would be used."""
    import torch

    from vqabench.files.resources import count_processors

    usable, threads = count_processors(), torch.get_num_threads()
    allowed = read_quota(Path("/sys/fs/cgroup/cpu.max"))
    found = f"{usable} of {os.cpu_count()}, {threads} threads"
    if allowed is not None and allowed < min(threads, usable):
        fix = f"export OMP_NUM_THREADS={max(1, int(allowed))}"
        yield Finding("processors", "note", f"{found}, but this container may use only {allowed:g}", fix)
    elif threads > usable:
        yield Finding("processors", "note", f"{found}, more than processors", f"export OMP_NUM_THREADS={usable}")
    else:
        yield Finding("processors", "ok", found)


def read_quota(path: Path) -> float | None:
    """Read how many processors a control group may use; None if there is no limit."""
    try:
        quota, period = path.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def check_memory() -> Iterator[Finding]:
    """Check how much memory is free."""
    from vqabench.files.resources import format_bytes, free_host_memory

    free = free_host_memory()
    if free == 0:
        yield Finding("memory", "ok", "unknown on this system")
    else:
        little = free < LITTLE_MEMORY
        fix = "end other programs, or ask for more memory" if little else ""
        yield Finding("memory", "note" if little else "ok", f"{format_bytes(free)} free", fix)


def check_data_folder(data: Path | None) -> Iterator[Finding]:
    """Check that data sets can be prepared; a folder that can only be read serves for those that are."""
    from vqabench.data.catalog.dataset import data_folder

    folder = data_folder(data)
    found = check_folder("data folder", folder, "--data-dir DIR, or export VQABENCH_DATA=DIR")
    if found.state == "broken" and any(folder.glob("*/prepared.h5")):
        yield Finding(
            "data folder", "note", f"{found.found}: only data sets that are already prepared can be used", found.fix
        )
    else:
        yield found


def check_folder(what: str, folder: Path, other: str) -> Finding:
    """Check that a folder can be written to, or made; `other` is how to choose another."""
    from vqabench.files.resources import format_bytes

    fix = f"choose another folder: {other}"
    if folder.is_symlink() and not folder.exists():
        return Finding(what, "broken", f"{folder} is a link to {folder.readlink()}, which does not exist", fix)
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not place.is_dir():
        return Finding(what, "broken", f"{place} is a file, not a folder", fix)
    free = shutil.disk_usage(place).free
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".vqabench-doctor-") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Finding(what, "broken", f"{place} cannot be written to: {error.strerror}", fix)
    made = "" if folder.exists() else " (created when needed)"
    if free < LITTLE_DISK:
        return Finding(
            what, "broken", f"{folder}{made}: only {format_bytes(free)} free", f"free some space, or {fix}"
        )
    return Finding(what, "ok", f"{folder}{made}: {format_bytes(free)} free")


def check_plugins() -> Iterator[Finding]:
    """Check every plugin by its metadata and source, without running any of its code."""
    from vqabench import plugins
    from vqabench.api import API_VERSION

    found = plugins.available()
    every = found.plugins
    counts = Counter(plugins.KINDS[plugin.group] for plugin in every)
    message = f"{counts['backbone']} backbones, {counts['loss']} losses"
    yield Finding("plugins", "ok", message) if every else Finding("plugins", "broken", message)
    for problem in found.problems:
        distribution = problem.partition(":")[0]
        yield Finding("plugins", "broken", problem, f"pip install --force-reinstall {distribution}")
    for clashing in plugins.find_clashes(every):
        names = " or ".join(plugin.qualified for plugin in clashing)
        first, distributions = clashing[0], " and ".join(plugin.distribution for plugin in clashing)
        yield Finding(
            "plugins",
            "broken",
            f"{plugins.KINDS[first.group]} {first.name} is offered by {distributions}",
            f"write {names}, or remove one: pip uninstall {clashing[-1].distribution}",
        )
    for plugin in every:
        try:
            version = read_class(plugin.target).api_version
            usable = version is None or version == API_VERSION
            fault = "" if usable else f"it was built for version {version} of the plugin API, not {API_VERSION}"
        except SourceError as error:
            fault = str(error)
        if fault:
            yield Finding(
                "plugins",
                "broken",
                f"{plugins.KINDS[plugin.group]} {plugin.name} of {plugin.distribution} {plugin.version}: {fault}",
                f"pip install --upgrade {plugin.distribution}, or remove it: pip uninstall {plugin.distribution}",
            )


def check_datasets(data: Path | None, catalog: Sequence[Path] | None) -> Iterator[Finding]:
    """Check every data set of the catalogue that is prepared, and name those that are not."""
    from vqabench.data.catalog.dataset import find_dataset
    from vqabench.data.catalog.entries import read_catalog
    from vqabench.paths import Paths

    paths = Paths(data=data, catalog=catalog)
    datasets = [find_dataset(name, paths.catalog, data) for name in read_catalog(paths.catalog)]
    prepared = [dataset for dataset in datasets if dataset.prepared_file.exists()]
    for dataset in prepared:
        yield check_prepared(dataset, paths)
    others = [dataset.name for dataset in datasets if dataset not in prepared]
    if others:
        yield Finding("data sets", "ok", f"not prepared: {first_few(others)}")


def check_prepared(dataset: Dataset, paths: Paths) -> Finding:
    """Read a data set's prepared file, which compares checksums, and open its features."""
    from vqabench.data.features.store import open_features
    from vqabench.data.prepare.preparation import summarise
    from vqabench.files.hdf5 import reading

    what = f"data set {dataset.name}"
    prepare = paths.prepare_command(dataset.name)
    try:
        open_features(dataset.features_file)
        with reading(dataset.prepared_file) as file:
            file.visititems(_read_array)
        summary = summarise(dataset)
    except Exception as error:  # a damaged file raises errors of many kinds
        message = str(error).partition("; delete it")[0]
        return Finding(what, "broken", message, f"rm {shlex.quote(str(dataset.prepared_file))} && {prepare}")
    if summary is None:
        return Finding(what, "broken", f"{dataset.prepared_file}: damaged", prepare)
    if not summary.current:
        return Finding(what, "note", "prepared from files or settings that have changed since", prepare)
    sizes = ", ".join(f"{split} {count:,}" for split, count in summary.questions.items())
    return Finding(what, "ok", f"prepared: {sizes} questions, {counted(summary.images, 'image')}")


def _read_array(_: str, item: object) -> None:
    import h5py

    if isinstance(item, h5py.Dataset):
        item[()]
