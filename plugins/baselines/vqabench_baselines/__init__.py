"""Trivial baselines: answer from the prior, without the image, or without the question."""

from vqabench_baselines.blind import ImageOnly, QuestionOnly
from vqabench_baselines.priors import InvertedPrior, Prior, RarestAnswer

__all__ = ["ImageOnly", "InvertedPrior", "Prior", "QuestionOnly", "RarestAnswer"]
