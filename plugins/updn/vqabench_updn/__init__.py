"""UpDn: bottom-up and top-down attention (Anderson et al. 2018), weight-normalised in every linear layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from vqabench.api import PADDING, Backbone, Batch, DataSpec, Output, Recipe
from vqabench_updn.dropout import Dropout, draw_dropped, drops_fast
from vqabench_updn.questions import last_state


def normalised_linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear layer, weight-normalised over the whole matrix: one scalar g per layer."""
    layer: nn.Linear = weight_norm(nn.Linear(inputs, outputs), dim=None)  # type: ignore[arg-type]
    return layer


def nonlinear(inputs: int, outputs: int) -> nn.Sequential:
    """Return the layer f of the paper: linear, then ReLU."""
    return nn.Sequential(normalised_linear(inputs, outputs), nn.ReLU())


class UpDn(Backbone):
    """Attend to regions by the question, and answer from the product of question and attended feature.

    `hidden` is H, by default half the width of the region features: 1024, as published, for 2048-wide features. If
    the data set has word vectors, they set the width of the embedding and its initial values; else `embedding` is
    the width.

    Raises ValueError if a size is below 1.
    """

    capturable = True
    recipe = Recipe(epochs=20, batch_size=512, optimizer="adamax", lr=2e-3, clip=0.25)
    declarations: ClassVar[Mapping[str, str]] = {
        "gradients:attention.bias": "adding the same number to all scores does not change a softmax"
    }

    def __init__(
        self,
        spec: DataSpec,
        *,
        hidden: int | None = None,
        embedding: int = 300,
        attention_dropout: float = 0.2,
        classifier_dropout: float = 0.5,
    ) -> None:
        super().__init__(spec)
        hidden = spec.region_width // 2 if hidden is None else hidden
        for name, size in (("hidden", hidden), ("embedding", embedding)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, not {size}")
        self.question_width = self.joint_width = hidden
        if spec.word_vectors is None:
            self.notes = ("no word vectors: words start at random",)
            self.embedding = nn.Embedding(len(spec.words), embedding, padding_idx=PADDING)
        else:
            vectors = spec.word_vectors.clone()
            self.embedding = nn.Embedding(len(vectors), vectors.shape[1], padding_idx=PADDING, _weight=vectors)
        self.gru = nn.GRU(self.embedding.embedding_dim, hidden, batch_first=True)
        self.attend_region = nonlinear(spec.region_width, hidden)
        self.attend_question = nonlinear(hidden, hidden)
        self.attention_dropout = Dropout(attention_dropout)
        self.attention = normalised_linear(hidden, 1)
        self.question_layer = nonlinear(hidden, hidden)
        self.region_layer = nonlinear(spec.region_width, hidden)
        self.classifier = nn.Sequential(
            *nonlinear(hidden, 2 * hidden),
            Dropout(classifier_dropout),
            normalised_linear(2 * hidden, len(spec.answers)),
        )

    def forward(self, batch: Batch) -> Output:
        """Return the logits [B, A] of a batch, with question and joint features [B, H] and attention [B, R]."""
        words_BLE = self.embedding(batch.tokens_BL)
        # The cumulative sum is 0 up to the first word, so this counts the padding in front of it.
        padded_B = ((batch.tokens_BL != PADDING).cumsum(1) == 0).sum(1)
        padding_E = self.embedding.weight[PADDING].detach()  # never trained
        question_BH = last_state(self.gru, words_BLE, padding_E, padded_B)
        attention_BR = self.attend(batch, question_BH)
        attended_BV = torch.einsum("br,brv->bv", attention_BR, batch.regions_BRV)
        joint_BH = self.question_layer(question_BH) * self.region_layer(attended_BV)
        return Output(
            logits_BA=self.classifier(joint_BH),
            question_features_BQ=question_BH,
            joint_features_BH=joint_BH,
            word_embeddings_BLE=words_BLE,
            attention_BR=attention_BR,
        )

    def attend(self, batch: Batch, question_BH: Tensor) -> Tensor:
        """Return the attention [B, R]: softmax over real regions of w · dropout(f_v(v) ∘ f_q(q)).

        Real regions sum to 1, all others are exactly 0.
        """
        # As dropout(f_v(v)) · (w ∘ f_q(q)): the product of two [B, R, H] tensors would take as much memory again.
        regions_BRH, scale = self.embed_regions(batch.regions_BRV)
        weight_1H, bias = self.attention.weight, self.attention.bias
        wanted_BH = self.attend_question(question_BH) * weight_1H * scale
        scores_BR = torch.einsum("brh,bh->br", regions_BRH, wanted_BH.to(regions_BRH.dtype)) + bias
        return scores_BR.masked_fill(~batch.region_mask_BR, -torch.inf).softmax(dim=1)

    def embed_regions(self, regions_BRV: Tensor) -> tuple[Tensor, float]:
        """Return dropout(f_v(v)) [B, R, H] without its scale 1 / (1 - p), and that scale."""
        linear, relu = self.attend_region
        projected: Tensor = linear(regions_BRV.flatten(0, 1))
        scale = 1.0
        if drops_fast(self.attention_dropout, projected):
            # Dropped before the ReLU, in place and without a record in the graph: the ReLU passes no gradient to a
            # 0, so the backward pass is right and no copy of [B, R, H] is made.
            with torch.no_grad():
                projected.masked_fill_(draw_dropped(projected, self.attention_dropout.p), 0.0)
            # The scale is applied to [B, H] by the caller, instead of to all regions here.
            kept, scale = projected.relu_(), 1 / (1 - self.attention_dropout.p)
        else:
            kept = self.attention_dropout(relu(projected))
        return kept.view(*regions_BRV.shape[:2], -1), scale
