"""Time the import of region features and the loop of published converters, on the same file.

`python benchmarks/import_speed.py --folder DIR [--images 2000] [--gzip]` writes a bottom-up table of images
with 36 regions of width 2048 (repeating the bytes of ten random rows), converts it in both ways, each in a
process of its own, and deletes everything. It prints images per second, peak resident memory with all child
processes, and the ratio.
"""

from __future__ import annotations

import argparse
import base64
import csv
import gzip
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO, cast

import numpy as np

from vqabench.data.features.conversion import convert_features

REGIONS, WIDTH = 36, 2048
COLUMNS = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")


def write_table(path: Path, images: int) -> None:
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(10):
        corners = generator.uniform(0, 200, (REGIONS, 2))
        boxes = np.hstack([corners, corners + generator.uniform(1, 200, (REGIONS, 2))]).astype(np.float32)
        features = np.maximum(generator.normal(size=(REGIONS, WIDTH)), 0).astype(np.float32)
        packed = (base64.b64encode(array.tobytes()).decode() for array in (boxes, features))
        rows.append("\t".join(["640", "480", str(REGIONS), *packed]))
    with gzip.open(path, "wt", 1) if path.suffix == ".gz" else path.open("w") as file:
        for image in range(images):
            file.write(f"{image}\t{rows[image % 10]}\n")


def convert_as_published(source: Path, destination: Path, images: int) -> None:
    """Convert row by row: DictReader, base64, h5py."""
    import h5py

    csv.field_size_limit(2**31 - 1)
    with h5py.File(destination, "w") as file, _open_text(source) as lines:
        features = file.create_dataset("image_features", (images, REGIONS, WIDTH), "f4")
        boxes = file.create_dataset("image_bb", (images, REGIONS, 4), "f4")
        spatial = file.create_dataset("spatial_features", (images, REGIONS, 6), "f4")
        rows: dict[int, int] = {}
        for number, row in enumerate(csv.DictReader(lines, COLUMNS, delimiter="\t")):
            size = np.array([float(row["image_w"]), float(row["image_h"])], np.float32)
            box = np.frombuffer(base64.b64decode(row["boxes"]), np.float32).reshape(REGIONS, 4)
            shares = box / np.tile(size, 2)
            rows[int(row["image_id"])] = number
            features[number] = np.frombuffer(base64.b64decode(row["features"]), np.float32).reshape(REGIONS, WIDTH)
            boxes[number] = box
            spatial[number] = np.hstack([shares, shares[:, 2:] - shares[:, :2]])
    destination.with_suffix(".json").write_text(json.dumps(rows))


def _open_text(source: Path) -> TextIO:
    return cast(TextIO, gzip.open(source, "rt")) if source.suffix == ".gz" else source.open()


def convert_here(source: Path, destination: Path, images: int) -> None:
    convert_features([source], destination, range(images), say=print)


def measure(convert: Callable[[Path, Path, int], None], source: Path, destination: Path, images: int) -> float:
    """Run a conversion in a fresh process; return its images per second."""
    # A forked process would begin with the memory of this one.
    process = multiprocessing.get_context("spawn").Process(target=convert, args=(source, destination, images))
    start = time.perf_counter()
    process.start()
    assert process.pid is not None
    peak = [0]
    watch = threading.Thread(target=_watch, args=(process.pid, peak))
    watch.start()
    process.join()
    seconds = time.perf_counter() - start
    watch.join()
    assert process.exitcode == 0, process.exitcode
    print(f"{convert.__name__}: {images / seconds:.0f} images/s ({seconds:.1f} s), {peak[0] / 1e6:.0f} MB at most")
    return images / seconds


def _watch(root: int, peak: list[int]) -> None:
    """Record the peak memory of a process and its descendants, sampled every 10 ms."""
    while (now := _resident(root)) is not None:
        peak[0] = max(peak[0], now)
        time.sleep(0.01)


def _resident(process: int) -> int | None:
    """Return the resident bytes of a process and its descendants; None if it has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        if not pages:  # a zombie
            return None
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except (OSError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(_resident(int(child)) or 0 for child in children)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="on the disk to be measured")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--gzip", action="store_true")
    options = parser.parse_args()
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        source = folder / ("table.tsv.gz" if options.gzip else "table.tsv")
        write_table(source, options.images)
        print(f"{source.stat().st_size / 1e6:.0f} MB, {options.images} images, {os.cpu_count()} processors")
        published = measure(convert_as_published, source, folder / "published.h5", options.images)
        here = measure(convert_here, source, folder / "features.h5", options.images)
        print(f"ratio: {here / published:.1f}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
