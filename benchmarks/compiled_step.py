"""Time steps of full-size UpDn with and without `torch.compile`, and print when compiling pays.

`python benchmarks/compiled_step.py [--device cuda] [--precision bfloat16] [--batch-size 512]`. On a CPU, only steps
that are not compiled skip the padding of questions: a graph has one shape.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from vqabench_updn import UpDn

from benchmarks.step_floor import synchronize
from benchmarks.synthetic_vqa import LENGTHS
from vqabench.api import Batch, DataSpec, Recipe
from vqabench.losses.plain import Plain
from vqabench.training.device import autocast, number_type, tune
from vqabench.training.optimizer import make_optimizer

ANSWERS, TYPES, WORDS, REGIONS, WIDTH, LENGTH = 2274, 65, 14_000, 36, 2048, 14
STEPS = 12


def make_spec() -> DataSpec:
    return DataSpec(
        answers=tuple(map(str, range(ANSWERS))),
        words=tuple(map(str, range(WORDS))),
        question_types=tuple(map(str, range(TYPES))),
        regions=REGIONS,
        region_width=WIDTH,
        question_length=LENGTH,
        answer_counts_TA=torch.full((TYPES, ANSWERS), 20.0),
        mean_targets_TA=torch.ones(TYPES, ANSWERS) / ANSWERS,
        questions_T=torch.ones(TYPES, dtype=torch.int64),
    )


def make_batch(size: int, dtype: torch.dtype) -> Batch:
    shares = torch.tensor([float(LENGTHS.get(length, 0)) for length in range(1, LENGTH + 1)])
    lengths_B = 1 + torch.multinomial(shares, size, replacement=True)
    words_BL = torch.arange(LENGTH) >= LENGTH - lengths_B[:, None]
    return Batch(
        question_ids_B=torch.arange(size),
        question_types_B=torch.randint(TYPES, (size,)),
        tokens_BL=torch.randint(2, WORDS, (size, LENGTH)) * words_BL,
        word_mask_BL=words_BL,
        type_words_BL=torch.zeros_like(words_BL),
        regions_BRV=torch.randn(size, REGIONS, WIDTH).relu().to(dtype),
        boxes_BR4=torch.zeros(size, REGIONS, 4),
        region_mask_BR=torch.ones(size, REGIONS, dtype=torch.bool),
        targets_BA=torch.zeros(size, ANSWERS).scatter(1, torch.randint(ANSWERS, (size, 3)), 0.6),
    )


def time_steps(
    forward: Callable[[Batch], Any], model: UpDn, batch: Batch, options: argparse.Namespace
) -> list[float]:
    device = torch.device(options.device)
    optimizer = make_optimizer(Recipe(), model.parameters())
    loss, context = Plain(make_spec(), "ce"), autocast(device, options.precision)
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        with context():
            value = loss(forward(batch).logits_BA.float(), batch)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--batch-size", type=int, default=512)
    options = parser.parse_args()
    device = torch.device(options.device)
    tune(device)
    model = UpDn(make_spec()).to(device).train()
    batch = make_batch(options.batch_size, number_type(options.precision)).map(lambda tensor: tensor.to(device))
    plain = time_steps(model, model, batch, options)
    with torch._dynamo.config.patch(allow_rnn=True):  # else a recurrent layer keeps all of it from being compiled
        compiled = time_steps(torch.compile(model), model, batch, options)
    usual, fast = (sorted(seconds)[len(seconds) // 2] for seconds in (plain, compiled))
    for name, seconds, median in (("as it is", plain, usual), ("compiled", compiled, fast)):
        rate = options.batch_size / median
        print(f"{name}: first step {seconds[0]:.1f} s, others {1000 * median:.1f} ms, {rate:.1f} samples/s")
    gain = usual - fast
    pays = f"pays after {sum(compiled[:2]) / gain * usual / 60:.1f} minutes" if gain > 0 else "never pays"
    print(f"compiled: {usual / fast:.2f} times as fast; {pays}")


if __name__ == "__main__":
    main()
