"""The training procedure, around any base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from vqabench.api import Backbone, Batch, Criterion, DataSpec, Output, Wrapper
from vqabench.errors import PluginError
from vqabench_css.contributions import contributions
from vqabench_css.counterfactual import counterfactual_targets, keep_questions, keep_regions
from vqabench_css.critical import candidate_regions, critical_regions, critical_words, regions_left
from vqabench_css.similarity import object_similarity


class Css(Wrapper):
    """Counterfactual samples synthesising (Chen et al. 2020): each batch is trained on twice.

    First as it is; then without what was critical for the right answers, which are right no longer. Objects or a
    word are taken away: `branch` says which, `both` draws one of the two for every batch. Answers are the base's.

    Critical objects are sought among the `candidates` most similar to the question: those that, weighed by
    softmax(`sharpness` x contribution), hold at most `share` of the weight, and always the first. The model's
    `top_answers` on what is critical alone lose their target.

    Contributions and top answers are taken from `Output.logits_BA`, what is scored, without a bias of training.
    """

    default_base = "vqabench-updn:updn"
    declarations: ClassVar[Mapping[str, str]] = {
        "synchronisation": "only the device knows how many questions have a counterfactual: one wait per batch",
    }

    def __init__(
        self,
        spec: DataSpec,
        base: Backbone,
        *,
        branch: Literal["both", "visual", "question"] = "both",
        candidates: int = 9,
        share: float = 0.65,
        sharpness: float = 10.0,
        top_answers: int = 5,
    ) -> None:
        super().__init__(spec, base)
        if any(isinstance(part, Css) for part in base.modules()):
            raise ValueError("its base has counterfactual samples already")
        for name, value in (("candidates", candidates), ("top_answers", top_answers)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {share}")
        if not sharpness > 0:
            raise ValueError(f"sharpness must be above 0, not {sharpness}")
        self.branch = branch
        self.candidates = candidates
        self.share = share
        self.sharpness = sharpness
        self.top_answers = top_answers
        self.similarity = object_similarity(spec)

    def training_losses(self, batch: Batch, criterion: Criterion) -> Iterator[Tensor]:
        """Yield the base's losses on the batch, then on its counterfactual, where there is one.

        Raises PluginError if the base does not give what the branch needs.
        """
        visual = self.branch == "visual" or (self.branch == "both" and bool(torch.rand(()) < 0.5))
        watched = batch.replace(regions_BRV=batch.regions_BRV.detach().requires_grad_(visual))
        found: list[Tensor] = []

        def watching(output: Output, given: Batch) -> Tensor:
            if not found:  # the base's first call is on the batch itself
                found.append(self._contributions(output, watched, visual))
            return criterion(output, given)

        yield from self.base.training_losses(watched, watching)
        watched.regions_BRV.grad = None  # the loop's backward pass has filled it, too
        make = self._change_images if visual else self._change_questions
        counterfactual = make(batch, found[0]) if found else None
        if counterfactual is not None:
            yield from self.base.training_losses(counterfactual, criterion)

    def _contributions(self, output: Output, watched: Batch, visual: bool) -> Tensor:
        words_BLE = output.word_embeddings_BLE
        if self.branch != "visual" and words_BLE is None:  # told at the first batch, whatever was drawn
            raise PluginError(
                "css: the base does not give the embeddings of its words (word_embeddings_BLE in the Output), by "
                "which the critical one is told; only branch=visual works around it"
            )
        inputs = watched.regions_BRV if visual else words_BLE
        assert inputs is not None
        assert watched.targets_BA is not None
        return contributions(output.logits_BA, watched.targets_BA, inputs)

    def _change_images(self, batch: Batch, contributions_BR: Tensor) -> Batch | None:
        """V-CSS: give the images of several objects without the critical ones; None if none has several."""
        rows = (batch.region_mask_BR.sum(1) > 1).nonzero()[:, 0]
        if len(rows) == 0:
            return None
        batch, contributions_BR = keep_questions(batch, rows), contributions_BR[rows]
        if self.similarity is None or batch.object_ids_BR is None:
            similarity_BR = None
        else:
            similarity_BR = self.similarity(batch)
        candidates_BR = candidate_regions(similarity_BR, batch.region_mask_BR, self.candidates)
        critical_BR = critical_regions(contributions_BR, candidates_BR, sharpness=self.sharpness, share=self.share)
        left_BR = regions_left(critical_BR, contributions_BR, batch.region_mask_BR)
        return self._change_targets(keep_regions(batch, left_BR), keep_regions(batch, critical_BR))

    def _change_questions(self, batch: Batch, contributions_BL: Tensor) -> Batch | None:
        """Q-CSS: give the questions that have a word to lose, without it; None if no question has."""
        words_BL, type_words_BL = self.base.word_masks(batch)
        free_BL = words_BL & ~type_words_BL
        if free_BL.shape != contributions_BL.shape:
            raise PluginError(
                f"css: the base embeds {contributions_BL.shape[1]} words of a question, but has masks for "
                f"{free_BL.shape[1]} (its author overrides word_masks and hide_words); only branch=visual works "
                "around it"
            )
        rows = free_BL.any(1).nonzero()[:, 0]
        if len(rows) == 0:
            return None
        batch, free_BL = keep_questions(batch, rows), free_BL[rows]
        critical_BL = critical_words(contributions_BL[rows], free_BL)
        alone = self.base.hide_words(batch, free_BL & ~critical_BL)
        return self._change_targets(self.base.hide_words(batch, critical_BL), alone)

    def _change_targets(self, counterfactual: Batch, alone: Batch) -> Batch:
        """Return the counterfactual with a⁻ for targets, by the answers to what is critical alone."""
        assert counterfactual.targets_BA is not None
        with answering(self.base):
            logits_BA = self.base(alone.replace(targets_BA=None)).logits_BA
        targets_BA = counterfactual_targets(counterfactual.targets_BA, logits_BA, self.top_answers)
        return counterfactual.replace(targets_BA=targets_BA)


class CssLmh(Css):
    """CSS around LMH, its bias included in both passes."""

    default_base = "vqabench-two-branch:lmh"
    objectives = ("bce",)
    declarations: ClassVar[Mapping[str, str]] = {
        **Css.declarations,
        "ce": "the prior is added to the log-odds of each answer, which a softmax over all answers does not have",
    }


@contextmanager
def answering(model: nn.Module) -> Iterator[None]:
    """Ask a model in evaluation mode and without gradients; every part is left in the mode it was in."""
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        # autocast keeps the weights that it casts, in older torch without a graph where gradients are off: in the
        # pass to come the layers would get no gradient (pytorch issues 65766, 105211, 112583)
        torch.clear_autocast_cache()
        for part in training:
            part.training = True
