"""Trivial baselines: what answers by the prior alone, without looking, or without asking."""

from vqabench_baselines.blind import ImageOnly, QuestionOnly
from vqabench_baselines.priors import InvertedPrior, Prior

__all__ = ["ImageOnly", "InvertedPrior", "Prior", "QuestionOnly"]
