"""Time the parts of a training step of full-size UpDn on a CPU, and alternatives that are not used.

`python benchmarks/step_parts.py [--precision bfloat16]` times the products of the attention layer; the recurrent
layer, with the padding read once and read for every question; dropout masks, drawn here and by PyTorch; and whole
steps, with memory returned to the system between them and kept.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from vqabench_updn import UpDn
from vqabench_updn.dropout import draw_dropped
from vqabench_updn.questions import last_state

from benchmarks.compiled_step import REGIONS, make_batch, make_spec, time_steps
from vqabench.api import PADDING
from vqabench.training.device import autocast, number_type, tune

ROUNDS = 5


def milliseconds(work: Callable[[], object]) -> float:
    work()
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return 1000 * median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--batch-size", type=int, default=512)
    options = parser.parse_args()
    options.device = "cpu"
    cpu, dtype = torch.device("cpu"), number_type(options.precision)
    context = autocast(cpu, options.precision)
    model, batch = UpDn(make_spec()).train(), make_batch(options.batch_size, dtype)
    steps = {"given back": time_steps(model, model, batch, options)}
    tune(cpu)
    steps["kept"] = time_steps(model, model, batch, options)

    rows = batch.regions_BRV.flatten(0, 1)
    weight = torch.randn(model.question_width, rows.shape[1]).to(dtype)
    gradient = torch.randn(len(rows), len(weight)).to(dtype)
    padded_B = ((batch.tokens_BL != PADDING).cumsum(1) == 0).sum(1)
    padding_E = model.embedding.weight[PADDING].detach()

    def read(state: Callable[[torch.Tensor], torch.Tensor]) -> None:
        with context():
            found = state(model.embedding(batch.tokens_BL))
        torch.autograd.backward(found.float().sum())
        model.zero_grad(set_to_none=True)

    numbers = torch.empty(options.batch_size * REGIONS, len(weight), dtype=dtype)
    parts = {
        "attention layer, forward and weight gradient": lambda: (rows @ weight.T, gradient.T @ rows),
        "recurrent layer, padding read once": lambda: read(
            lambda words: last_state(model.gru, words, padding_E, padded_B)
        ),
        "recurrent layer, padding read by all": lambda: read(lambda words: model.gru(words)[1][0]),
        "dropout's mask": lambda: draw_dropped(numbers, 0.2),
        "dropout's mask, by PyTorch": lambda: numbers.bernoulli_(0.8),
    }
    for name, seconds in steps.items():
        print(f"step, memory {name}: {1000 * median(seconds[1:]):.0f} ms")
    for name, work in parts.items():
        print(f"{name}: {milliseconds(work):.0f} ms")


if __name__ == "__main__":
    main()
