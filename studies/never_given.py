"""Count answers that never occur with the question's type in training.

    python studies/never_given.py runs/digits-cp/lmh/bce-plain/seed-0 ...

prints their share, and the mean logits of the best answer that occurs with the type and of the best that does not.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from vqabench.data.batches.placement import PlacedFeatures
from vqabench.data.prepare.prepared import prepare
from vqabench.evaluation.predict import load_split
from vqabench.events import ignore
from vqabench.paths import Paths
from vqabench.results import Run
from vqabench.training.model import load_model

BATCH = 512


def measure(run: Run, kind: str) -> tuple[float, float, float]:
    """Return the share of such answers to the test questions of an answer type, in percent, and two mean logits.

    They belong to the best answer that occurs with the question's type in training, and to the best that does not.
    """
    dataset = Paths().dataset(run.read_manifest().dataset)
    prepared = prepare(dataset, lambda _: None)
    model = load_model(run, prepared, ignore).eval()
    features = PlacedFeatures(prepared.features, torch.device("cpu"))
    data = load_split(model, prepared, dataset, "test", features)
    yes = prepared.spec.answers.index("yes")
    given_TA = prepared.spec.answer_counts_TA > 0
    asked_T = given_TA[:, yes] if kind == "yes/no" else ~given_TA[:, yes]
    best = []
    with torch.no_grad():
        for batch in data.batches(torch.split(torch.arange(len(data)), BATCH), with_targets=False):
            logits_BA, given_BA = model(batch).logits_BA, given_TA[batch.question_types_B]
            pair = [logits_BA.masked_fill(~kept, -torch.inf).amax(1) for kept in (given_BA, ~given_BA)]
            best.append(torch.stack(pair)[:, asked_T[batch.question_types_B]])
    of_type, of_others = torch.cat(best, dim=1)
    return 100 * float((of_others > of_type).float().mean()), float(of_type.mean()), float(of_others.mean())


def main() -> None:
    """Print a line for each run and kind of question."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    for folder in parser.parse_args().runs:
        for kind in ("yes/no", "other kinds"):
            share, of_type, of_others = measure(Run(folder), kind)
            print(
                f"{folder}  {kind}: {share:6.2f} % never given; best logits {of_type:.2f}, others {of_others:.2f}"
            )


if __name__ == "__main__":
    main()
