"""Time the bootstrap and the permutation test over images, at the size of VQA-CP v2's test split.

`python benchmarks/clustered_bootstrap.py` tests 220,000 questions about 98,000 images with 10,000 resamples,
for one run on each side and for means over seeds. It prints the time, the time of a loop that draws every image
of a resample (over few resamples in the same run), and the growth of the peak memory.
"""

from __future__ import annotations

import resource
import time

import numpy as np
from numpy.typing import NDArray

from vqabench.evaluation.significance import compare_questions

QUESTIONS = 220_000
IMAGES = 98_000
RESAMPLES = 10_000
LOOPS = 100
ACCURACIES = (0.3, 0.6, 0.9, 1.0)
SHARES = (0.1, 0.1, 0.1, 0.7)
"""Of the accuracies above 0."""
SEEDS = ((1, 1), (5, 5), (3, 5))

Floats = NDArray[np.float64]


def draw_images(generator: np.random.Generator) -> NDArray[np.int64]:
    """Return the image of each question: each image has one, and the others follow a gamma distribution."""
    popularity = generator.gamma(1, size=IMAGES)
    more = generator.choice(IMAGES, QUESTIONS - IMAGES, p=popularity / popularity.sum())
    return np.concatenate([np.arange(IMAGES), more])


def answer(generator: np.random.Generator, knows: Floats, seeds: int) -> Floats:
    """Return mean accuracies over seeds; `knows` is the chance that a question is answered correctly."""
    total = np.zeros(QUESTIONS)
    for _ in range(seeds):
        hits = generator.random(QUESTIONS) < knows
        total += np.where(hits, generator.choice(ACCURACIES, QUESTIONS, p=SHARES), 0)
    return total / seeds


def loop(ours: Floats, theirs: Floats, images: NDArray[np.int64]) -> float:
    """Return the time of both tests if every image is drawn, in seconds for all resamples."""
    generator = np.random.default_rng(0)
    start = time.perf_counter()
    sums, sizes = np.bincount(images, ours - theirs), np.bincount(images)
    for _ in range(LOOPS):
        drawn = generator.integers(len(sums), size=len(sums))
        _ = sums[drawn].sum() / sizes[drawn].sum()
        _ = np.where(generator.random(len(sums)) < 0.5, sums, -sums).sum()
    return (time.perf_counter() - start) * RESAMPLES / LOOPS


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    generator = np.random.default_rng(0)
    images, knows = draw_images(generator), generator.beta(0.4, 0.6, QUESTIONS)
    for seeds in SEEDS:
        ours, theirs = (answer(generator, knows, number) for number in seeds)
        before, start = peak_megabytes(), time.perf_counter()
        compare_questions(ours, theirs, images, resamples=RESAMPLES)
        wall, grown = time.perf_counter() - start, peak_megabytes() - before
        print(f"{seeds[0]} and {seeds[1]} seeds: {wall:.2f} s, peak {grown:.0f} MB higher than before,", end=" ")
        print(f"{loop(ours, theirs, images) / wall:.1f} times as fast as a loop")


if __name__ == "__main__":
    main()
