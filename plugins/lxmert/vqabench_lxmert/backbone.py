"""LXMERT: a language, an object-relationship and a cross-modality encoder (Tan & Bansal 2019).

Shapes as in `vqabench.api`; L is the length of a question in word pieces, [CLS] and [SEP] included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import LxmertConfig, LxmertModel

from vqabench.api import Backbone, Batch, DataSpec, Output, Recipe
from vqabench.errors import first_few
from vqabench_lxmert.pieces import Vocabulary, WordPieces, learn_vocabulary, read_tensor
from vqabench_lxmert.published import check_settings, load_head, load_transformer, read_published

PIECES = "pieces"
"""Key of the word pieces in `Batch.extras`."""
PUBLISHED_VOCABULARY = 30_522
PUBLISHED_WIDTH = 768
UNREAD = "the output of the last cross-modality layer for regions is not used"
RANDOM = "no pre-trained weights: starts at random, with word pieces learnt from the training questions"
SEEN = "the weights it started from (SHA-256 {}) were pre-trained on VQA v2, which test questions may be taken from"


class Lxmert(Backbone):
    """The transformer of the `transformers` library under an answer head: 768 -> 1536 -> A (GELU, LayerNorm).

    `weights` names a folder or a repository of the Hugging Face hub (`unc-nlp/lxmert-base-uncased`); sizes must
    match the weights, and default to the published ones. Such runs are marked, because the pre-training used VQA
    v2. Without weights everything starts at random, with at most `vocabulary` word pieces (by default 30,522)
    learnt from the words of the training questions. A question is cut to `pieces`, [CLS] and [SEP] included.

    `question_features_BQ` is [CLS] after the language encoder, before any layer that sees the image. `attention_BR`
    is [CLS]'s attention over the regions in the last cross-modality layer, averaged over the heads, before dropout.

    Raises ValueError if an option is out of range or options exclude each other.
    """

    capturable = True
    recipe = Recipe(
        epochs=4,
        finetune_epochs=2,
        batch_size=32,
        optimizer="bert-adam",
        lr=5e-5,
        weight_decay=0.01,
        schedule="linear",
        warmup=0.1,
        clip=5.0,
    )
    advises_against: ClassVar[Mapping[str, str]] = {
        "mask": "the paper of the answer mask does not combine it with LXMERT, so there is nothing to compare with"
    }
    declarations: ClassVar[Mapping[str, str]] = {
        "gradients:.token_type_embeddings.weight": "the second of the two token types is never used",
        **{f"gradients:.x_layers.*.visn_{part}.*": UNREAD for part in ("inter", "output")},
        "gradients:.x_layers.*.visn_self_att.*": UNREAD,
        "gradients:.key.bias": "adding the same number to all scores does not change a softmax",
    }
    check_options: ClassVar[Mapping[str, Any]] = {
        "hidden": 32,
        "heads": 2,
        "language_layers": 1,
        "object_layers": 1,
        "cross_layers": 1,
    }

    def __init__(
        self,
        spec: DataSpec,
        *,
        weights: str | None = None,
        hidden: int = 768,
        heads: int = 12,
        language_layers: int = 9,
        object_layers: int = 5,
        cross_layers: int = 5,
        pieces: int = 20,
        vocabulary: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(spec)
        self.sizes = {
            "hidden": hidden,
            "heads": heads,
            "language_layers": language_layers,
            "object_layers": object_layers,
            "cross_layers": cross_layers,
        }
        _check(self.sizes, pieces, dropout)
        if weights is not None and vocabulary is not None:
            raise ValueError("vocabulary cannot be set together with weights, which have their own")
        if weights == "":
            raise ValueError("weights must name a folder or a repository of the hub, or be none")
        self.weights, self.spec, self.length = weights, spec, pieces
        self.question_width = self.joint_width = hidden
        # Without padding and unknown word. Published weights replace this vocabulary in `start`.
        learnt = learn_vocabulary(spec.words[2:], PUBLISHED_VOCABULARY if vocabulary is None else vocabulary)
        self.transformer = LxmertModel(_configure(self.sizes, pieces, dropout, len(learnt), spec.region_width))
        self.head = _make_head(hidden, len(spec.answers))
        self._take_vocabulary(learnt)
        # A run that started from published weights has another vocabulary than the one learnt here.
        self.register_load_state_dict_pre_hook(_take_vocabulary_of)  # type: ignore[no-untyped-call]

    def _take_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Tokenise with this vocabulary, and store it in the state dict: the weights are useless without it."""
        self.pieces = WordPieces(vocabulary, self.length)
        embeddings = self.transformer.embeddings
        before = embeddings.word_embeddings.weight
        device = before.device
        self.vocabulary = nn.Buffer(self.pieces.to_tensor().to(device))
        # Not persistent, because they follow from the vocabulary.
        self.wordless_P = nn.Buffer(torch.tensor(self.pieces.wordless, device=device), persistent=False)
        # The pieces of each type's own words, to recognise them at the start of a question.
        types_TL = self.pieces.encode(self.spec.question_types)
        framed_TL = torch.isin(types_TL, torch.tensor(self.pieces.frame))
        types_TL = types_TL.masked_fill(framed_TL, self.pieces.padding).to(device)
        self.types_TL = nn.Buffer(types_TL, persistent=False)
        # Published weights have another number of pieces than those learnt when the model was built.
        if embeddings.word_embeddings.num_embeddings != self.pieces.size:
            self.transformer.config.vocab_size = self.pieces.size
            embeddings.word_embeddings = nn.Embedding(
                self.pieces.size, self.question_width, self.pieces.padding, device=device, dtype=before.dtype
            )

    def start(self) -> None:
        """Load published weights, if the option names some.

        Raises ValueError if they are missing, damaged, or of another size.
        """
        # Not in __init__: a resumed or tested run loads its own weights, and needs no published ones.
        if self.weights is None:
            self.notes = (RANDOM,)
            return
        published = read_published(self.weights)
        check_settings(published, self.sizes, self.spec.region_width)
        self._take_vocabulary(published.vocabulary)
        load_transformer(self.transformer, published)
        message = load_head(self.head, published, self.spec.answers)
        if published.unused:
            message += (
                f"; {len(published.unused)} of their parameters are not used ({first_few(published.unused, 3)})"
            )
        self.notes = (f"starts from the weights {published.where}: {message}",)
        # The digest keeps runs from other weights in other rows.
        self.brands = (SEEN.format(published.digest[:12]),)

    def prepare_questions(self, questions: Sequence[str]) -> Mapping[str, Tensor]:
        """Cut questions into word pieces: int64 [N, L], L the longest one's length, at most the option `pieces`."""
        return {PIECES: self.pieces.encode(questions)}

    def forward(self, batch: Batch) -> Output:
        """Return the logits [B, A] of a batch, with features of [CLS] [B, H] and its attention [B, R]."""
        pieces_BL = batch.extras[PIECES]
        words_BLH = self.transformer.embeddings.word_embeddings(pieces_BL)
        seen = self.transformer(
            inputs_embeds=words_BLH,
            attention_mask=pieces_BL != self.pieces.padding,
            visual_feats=batch.regions_BRV,
            visual_pos=batch.boxes_BR4,
            visual_attention_mask=batch.region_mask_BR,
            output_hidden_states=True,
        )
        language, vision = seen.language_hidden_states, seen.vision_hidden_states
        # The second-last hidden states are the inputs of the last cross-modality layer.
        last = self.transformer.encoder.x_layers[-1]
        return Output(
            logits_BA=self.head(seen.pooled_output),
            question_features_BQ=language[self.sizes["language_layers"] - 1][:, 0],
            joint_features_BH=seen.pooled_output,
            word_embeddings_BLE=words_BLH,
            attention_BR=attend(last, language[-2][:, 0], vision[-2], batch.region_mask_BR),
        )

    def word_masks(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return which pieces belong to a question's words, and which of these, at its start, spell its type.

        Two bool tensors [B, L], over the positions of `Output.word_embeddings_BLE`. Question marks and commas do
        not count as words: the question is the same without them.
        """
        pieces_BL = batch.extras[PIECES]
        own_BL = ~torch.isin(pieces_BL, self.wordless_P)
        types_BL = self.types_TL[batch.question_types_B]
        missing = pieces_BL.shape[1] - types_BL.shape[1]  # negative if a type is longer, which cuts it off
        types_BL = nn.functional.pad(types_BL, (0, missing), value=self.pieces.padding)
        spelled_BL = types_BL != self.pieces.padding
        # A question that does not begin with all words of its type has none of them.
        begins_B1 = ((types_BL == pieces_BL) | ~spelled_BL).all(1, keepdim=True)
        return own_BL, spelled_BL & begins_B1

    def hide_words(self, batch: Batch, hidden_BL: Tensor) -> Batch:
        """Return the batch with the word pieces at some positions (bool [B, L]) replaced by [UNK]."""
        pieces_BL = batch.extras[PIECES].masked_fill(hidden_BL, self.pieces.unknown)
        return batch.replace(extras={**batch.extras, PIECES: pieces_BL})


def attend(layer: Any, first_BH: Tensor, regions_BRH: Tensor, region_mask_BR: Tensor) -> Tensor:
    """Return the attention [B, R] of a question's first piece over the regions in a cross-modality layer.

    The mean over its N heads, each K wide, before dropout: sums to 1 over real regions, and is 0 elsewhere.
    """
    # Computed again, because the library returns attention after dropout, which does not sum to 1 in training.
    attention = layer.visual_attention.att
    shape = (attention.num_attention_heads, attention.attention_head_size)
    query_BNK = attention.query(first_BH).unflatten(1, shape)
    key_BRNK = attention.key(regions_BRH).unflatten(2, shape)
    scores_BNR = torch.einsum("bnk,brnk->bnr", query_BNK, key_BRNK) / math.sqrt(shape[1])
    # Masked before the softmax, so that padded regions get exactly 0.
    shares_BNR: Tensor = scores_BNR.masked_fill(~region_mask_BR[:, None], -torch.inf).softmax(2)
    return shares_BNR.mean(1)


def _check(sizes: Mapping[str, int], pieces: int, dropout: float) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size}")
    if sizes["hidden"] % sizes["heads"]:
        raise ValueError(f"hidden must be a multiple of heads, not {sizes['hidden']} with {sizes['heads']} heads")
    if pieces < 3:
        raise ValueError(f"pieces must be at least 3, for [CLS], [SEP] and one of the question, not {pieces}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, not {dropout}")


def initial_deviation(hidden: int) -> float:
    """Return the standard deviation of random initial weights: BERT's 0.02 at the published width of 768.

    It grows with the root of 768 / width, so that the outputs of layers have the same size at every width. With
    0.02, a layer of width 64 would output a third of that, and the model would learn slowly.
    """
    return 0.02 * math.sqrt(PUBLISHED_WIDTH / hidden)


def _configure(sizes: Mapping[str, int], pieces: int, dropout: float, vocabulary: int, width: int) -> LxmertConfig:
    return LxmertConfig(
        vocab_size=vocabulary,
        max_position_embeddings=pieces,
        hidden_size=sizes["hidden"],
        # Four times the width, as in BERT and in the published weights.
        intermediate_size=4 * sizes["hidden"],
        num_attention_heads=sizes["heads"],
        l_layers=sizes["language_layers"],
        r_layers=sizes["object_layers"],
        x_layers=sizes["cross_layers"],
        visual_feat_dim=width,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=initial_deviation(sizes["hidden"]),
    )


def _make_head(hidden: int, answers: int) -> nn.Sequential:
    first, last = nn.Linear(hidden, 2 * hidden), nn.Linear(2 * hidden, answers)
    for layer in (first, last):
        nn.init.normal_(layer.weight, std=initial_deviation(hidden))
        nn.init.zeros_(layer.bias)
    # The epsilon of BERT and of the published head; PyTorch's default is 1e-5.
    return nn.Sequential(first, nn.GELU(), nn.LayerNorm(2 * hidden, eps=1e-12), last)


def _take_vocabulary_of(model: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Switch a model that is about to load weights to the vocabulary that they were trained with."""
    assert isinstance(model, Lxmert)
    kept = state.get(f"{prefix}vocabulary")
    if kept is not None and not torch.equal(kept.cpu(), model.vocabulary.cpu()):
        model._take_vocabulary(read_tensor(kept))
