"""Time `vqabench data prepare` on the 60,000 real VQA v2 sample questions.

`VQABENCH_TEST_DATA=SAMPLES python benchmarks/prepare_speed.py`. The samples have features of few images, so all
images get random ones, 4 regions of width 16: this measures reading, normalising, counting and encoding. The
ratio is to the time in which the standard library reads the same JSON in the same run.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from vqabench.data.features.store import write_features
from vqabench.data.vqa.annotations import read_questions

FILES = ("v2_OpenEnded_mscoco_train2014_questions.60000.json.gz", "v2_mscoco_train2014_annotations.60000.json.gz")
CATALOG = """
[real]
title = "60,000 questions of VQA v2"
features = "features.h5"
splits.train = {{ questions = "{questions}", annotations = "{annotations}" }}
"""


def write_random_features(path: Path, images: list[int | str]) -> None:
    generator = np.random.default_rng(0)
    write_features(
        path,
        regions=generator.normal(size=(len(images), 4, 16)).astype(np.float16),
        boxes=np.zeros((len(images), 4, 4), np.float32),
        counts=np.full(len(images), 4, np.int32),
        image_ids=np.array(images),
    )


def main() -> None:
    questions, annotations = (Path(os.environ["VQABENCH_TEST_DATA"]).absolute() / "vqa-v2" / name for name in FILES)
    start = time.perf_counter()
    for path in (questions, annotations):
        json.loads(gzip.decompress(path.read_bytes()))
    reading = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = sorted({question.image_id for question in read_questions(questions)}, key=str)
        write_random_features(folder / "features.h5", images)
        (folder / "catalog.toml").write_text(CATALOG.format(questions=questions, annotations=annotations))
        command = [sys.executable, "-m", "vqabench", "data", "prepare", "real", "--data-dir", str(folder)]
        start = time.perf_counter()
        subprocess.run([*command, "--catalog", str(folder / "catalog.toml")], check=True)
        wall = time.perf_counter() - start
    print(
        f"data prepare: {wall:.2f} s, {wall / reading:.1f} times the json module's {reading:.2f} s of reading alone"
    )


if __name__ == "__main__":
    main()
