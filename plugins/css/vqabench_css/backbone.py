"""The training procedure, as a wrapper of any base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from vqabench.api import Backbone, Batch, Criterion, DataSpec, Output, Wrapper
from vqabench.errors import PluginError
from vqabench_css.counterfactual import contributions, counterfactual_targets, keep_questions, keep_regions
from vqabench_css.critical import candidate_regions, critical_regions, critical_words, regions_left
from vqabench_css.similarity import object_similarity


class Css(Wrapper):
    """Counterfactual samples synthesising (Chen et al. 2020): train on each batch twice.

    First unchanged; then without the objects, or the word, that were critical for the right answers, which are no
    longer right. `branch` selects objects (`visual`) or a word (`question`); `both` draws one of the two for every
    batch. Testing is the base's.

    Critical objects are chosen among the `candidates` most similar to the question: those that hold at most `share`
    of softmax(`sharpness` x contribution), from the largest on, and always the first. The model's `top_answers` for
    the critical part alone lose their target.

    Contributions and top answers are computed from `Output.logits_BA`, the scored logits, without a bias that is
    only added in training.

    Raises ValueError if an option is out of range, or the base contains CSS already.
    """

    default_base = "vqabench-updn:updn"
    declarations: ClassVar[Mapping[str, str]] = {
        "synchronisation": "how many questions have a counterfactual is computed on the device: one wait per batch",
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
            raise ValueError("its base already makes counterfactual samples")
        for name, value in (("candidates", candidates), ("top_answers", top_answers)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {share}")
        if not sharpness > 0:
            raise ValueError(f"sharpness must be above 0, not {sharpness}")
        self.branch, self.top_answers = branch, top_answers
        self.candidates, self.share, self.sharpness = candidates, share, sharpness
        self.similarity = object_similarity(spec)

    def training_losses(self, batch: Batch, criterion: Criterion) -> Iterator[Tensor]:
        """Yield the base's losses on the batch, then on its counterfactual, if there is one.

        Raises PluginError if the base does not return what the branch needs.
        """
        # PyTorch's own generator: a resumed run draws the same branches.
        visual = self.branch == "visual" or (self.branch == "both" and bool(torch.rand(()) < 0.5))
        watched = batch.replace(regions_BRV=batch.regions_BRV.detach().requires_grad_(visual))
        found: list[Tensor] = []

        def watching(output: Output, given: Batch) -> Tensor:
            # The base's first call is on the batch itself; a base that trains several times calls it again.
            if not found:
                found.append(self._contributions(output, watched, visual))
            return criterion(output, given)

        yield from self.base.training_losses(watched, watching)
        watched.regions_BRV.grad = None  # filled by the loop's backward pass, and as large as the batch
        make = self._change_images if visual else self._change_questions
        counterfactual = make(batch, found[0]) if found else None
        if counterfactual is not None:
            yield from self.base.training_losses(counterfactual, criterion)

    def _contributions(self, output: Output, watched: Batch, visual: bool) -> Tensor:
        words_BLE = output.word_embeddings_BLE
        # Checked whichever branch was drawn, so that an unsuitable base fails at the first batch.
        if self.branch != "visual" and words_BLE is None:
            raise PluginError(
                "css: the base does not return the embeddings of its words (word_embeddings_BLE in the Output), "
                "from which the critical one is found; only branch=visual works around it"
            )
        inputs = watched.regions_BRV if visual else words_BLE
        assert inputs is not None
        assert watched.targets_BA is not None
        return contributions(output.logits_BA, watched.targets_BA, inputs)

    def _change_images(self, batch: Batch, contributions_BR: Tensor) -> Batch | None:
        """V-CSS: return the questions about several objects, without the critical ones; None if there are none."""
        rows = (batch.region_mask_BR.sum(1) > 1).nonzero()[:, 0]
        if len(rows) == 0:
            return None
        batch, contributions_BR = keep_questions(batch, rows), contributions_BR[rows]
        similarity_BR = None if self.similarity is None or batch.object_ids_BR is None else self.similarity(batch)
        candidates_BR = candidate_regions(similarity_BR, batch.region_mask_BR, self.candidates)
        critical_BR = critical_regions(contributions_BR, candidates_BR, sharpness=self.sharpness, share=self.share)
        left_BR = regions_left(critical_BR, contributions_BR, batch.region_mask_BR)
        return self._change_targets(keep_regions(batch, left_BR), keep_regions(batch, critical_BR))

    def _change_questions(self, batch: Batch, contributions_BL: Tensor) -> Batch | None:
        """Q-CSS: return the questions with a word outside their type, without the critical one; None if none."""
        words_BL, type_words_BL = self.base.word_masks(batch)
        free_BL = words_BL & ~type_words_BL
        if free_BL.shape != contributions_BL.shape:
            raise PluginError(
                f"css: the base embeds {contributions_BL.shape[1]} words of a question, but has masks for "
                f"{free_BL.shape[1]} (its author must override word_masks and hide_words); only branch=visual "
                "works around it"
            )
        rows = free_BL.any(1).nonzero()[:, 0]
        if len(rows) == 0:
            return None
        batch, free_BL = keep_questions(batch, rows), free_BL[rows]
        critical_BL = critical_words(contributions_BL[rows], free_BL)
        alone = self.base.hide_words(batch, free_BL & ~critical_BL)
        return self._change_targets(self.base.hide_words(batch, critical_BL), alone)

    def _change_targets(self, counterfactual: Batch, alone: Batch) -> Batch:
        """Return the counterfactual with the targets a⁻, from the answers for the critical part alone."""
        assert counterfactual.targets_BA is not None
        # No targets: the base answers as in testing, without penalties or a bias of training.
        with answering(self.base):
            logits_BA = self.base(alone.replace(targets_BA=None)).logits_BA
        targets_BA = counterfactual_targets(counterfactual.targets_BA, logits_BA, self.top_answers)
        return counterfactual.replace(targets_BA=targets_BA)


class CssLmh(Css):
    """CSS around LMH, whose bias is part of both passes."""

    default_base = "vqabench-two-branch:lmh"
    objectives = ("bce",)
    declarations: ClassVar[Mapping[str, str]] = {
        **Css.declarations,
        "ce": "the prior is added to the log-odds of each answer, which a softmax over all answers does not have",
    }


@contextmanager
def answering(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, without gradients; restore the mode of every part afterwards."""
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        # Autocast caches the weights that it casts; in older versions of PyTorch, those cast without gradients have
        # no graph, and the layers would get no gradient in the next pass (pytorch issues 65766, 105211, 112583).
        torch.clear_autocast_cache()
        for part in training:
            part.training = True
