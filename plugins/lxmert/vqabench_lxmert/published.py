"""Read published LXMERT weights from a folder or the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vqabench.errors import first_few
from vqabench_lxmert.pieces import Vocabulary, read_vocabulary

ANSWER_FILES = ("answers.json", "trainval_label2ans.json", "all_ans.json")
"""Files that may list the answers of the answer head; the first one of the head's length is used."""
SAFE = "*.safetensors"
PICKLED = ("pytorch_model*.bin", "*_LXRT.pth")
ASIDE = ("config.json", "vocab.txt", "tokenizer.json", *ANSWER_FILES)
TRANSFORMER = ("embeddings.", "encoder.", "pooler.")
POSITIONS = "embeddings.position_embeddings.weight"

State = dict[str, Tensor]


@dataclass(frozen=True)
class Published:
    """Weights under the names of this model, with their vocabulary, answers and settings."""

    where: str
    digest: str
    """SHA-256 of the files with the weights."""
    transformer: State
    head: State
    """Of the answer head: `0.weight`, ..., `3.bias`. Empty if the weights have none."""
    unused: tuple[str, ...]
    """Names of parameters that this model does not have: heads of other pre-training tasks."""
    vocabulary: Vocabulary
    answers: tuple[str, ...] | None
    """Answers of the rows of the answer head's last layer; None if unknown."""
    settings: Mapping[str, Any]
    """`config.json`; empty if there is none."""


def read_published(name: str) -> Published:
    """Read weights from a folder, or from the hub by the name of a repository.

    The weights may have the names of `transformers`, or be the original `model_LXRT.pth`. Pickles are read with
    `weights_only`, so no code in them is run. Raises ValueError, in one line, if something is missing or damaged.
    """
    folder = find_folder(name)
    files = _find_state(folder)
    parts: dict[str, State] = {"transformer": {}, "head": {}, "": {}}
    for key, tensor in (pair for file in files for pair in _read_state(file).items()):
        part, own = sort_key(key)
        # Some repositories store float16, in which training would underflow.
        parts[part][own] = tensor.float()
    return Published(
        where=name,
        digest=_hash(files),
        transformer=parts["transformer"],
        head=parts["head"],
        unused=tuple(parts[""]),
        vocabulary=read_vocabulary(folder),
        answers=_read_answers(folder, parts["head"]),
        settings=_read_json(folder / "config.json", dict) if (folder / "config.json").is_file() else {},
    )


def find_folder(name: str) -> Path:
    """Return the folder of that name, or the local copy of the hub's repository, downloaded if needed.

    HF_HUB_OFFLINE prevents downloads. Raises ValueError if there is neither.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ValueError(f"weights: {name} is a file; name the folder that holds it")
    if folder.is_absolute() or name.startswith(".") or name.count("/") > 1 or "\\" in name:
        raise ValueError(f"weights: there is no folder {name}")
    try:
        # Pickles only if there is nothing safer: many repositories hold the same weights in both forms.
        found = Path(snapshot_download(name, allow_patterns=[SAFE, *ASIDE]))
        if not any(found.glob(SAFE)):
            found = Path(snapshot_download(name, allow_patterns=[*PICKLED, *ASIDE]))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise ValueError(
            f"weights: there is no folder {name}, and no repository of that name on the Hugging Face hub "
            f"({_first_line(error)})"
        ) from error
    return found


def sort_key(key: str) -> tuple[str, str]:
    """Return the part of the model that a published parameter belongs to, and its name there.

    `transformers` uses the prefix `lxmert.`; the original code uses `bert.`, sometimes preceded by `module.`.
    """
    key = key.removeprefix("module.")
    if key.startswith("answer_head.logit_fc."):
        return "head", key.removeprefix("answer_head.logit_fc.")
    inner = key.removeprefix("lxmert.").removeprefix("bert.")
    return ("transformer", inner) if inner.startswith(TRANSFORMER) else ("", key)


def check_settings(published: Published, options: Mapping[str, int], region_width: int) -> None:
    """Raise ValueError if `config.json` exists and has other sizes than the model."""
    names = {
        "hidden": "hidden_size",
        "heads": "num_attention_heads",
        "language_layers": "l_layers",
        "object_layers": "r_layers",
        "cross_layers": "x_layers",
    }
    # A key that `config.json` lacks cannot contradict the options.
    stated = {option: published.settings.get(name, options[option]) for option, name in names.items()}
    changes = [f"--set {option}={value}" for option, value in stated.items() if value != options[option]]
    if changes:
        raise ValueError(f"weights {published.where} have other sizes: {' '.join(changes)}")
    width = published.settings.get("visual_feat_dim", region_width)
    if width != region_width:
        raise ValueError(
            f"weights {published.where} need regions of width {width}, but the data set's have {region_width}"
        )


def load_transformer(transformer: nn.Module, published: Published) -> None:
    """Load the weights into the transformer. Raises ValueError if names or sizes do not match."""
    own, given = transformer.state_dict(), dict(published.transformer)
    if POSITIONS in given:  # the model has fewer positions, as its questions are shorter
        given[POSITIONS] = given[POSITIONS][: len(own[POSITIONS])]
    # Unknown heads are ignored, but an unknown layer of the encoder means other sizes.
    problems = [
        ("lack", sorted(own.keys() - given.keys())),
        (
            "hold parameters that this model lacks:",
            sorted(name for name in given.keys() - own.keys() if "encoder." in name),
        ),
        ("have other sizes:", _other_sizes(own, given)),
    ]
    if POSITIONS in given and len(given[POSITIONS]) < len(own[POSITIONS]):
        raise ValueError(f"weights {published.where} have other sizes: --set pieces={len(given[POSITIONS])}")
    message = [f"{what} {len(names)} ({first_few(names, 3)})" for what, names in problems if names]
    if message:
        raise ValueError(f"weights {published.where} do not fit the model: they {'; they '.join(message)}")
    transformer.load_state_dict({name: given[name] for name in own})


def load_head(head: nn.Sequential, published: Published, answers: tuple[str, ...]) -> str:
    """Initialise the answer head from the published one, and return a message about what was used.

    Rows of the last layer are copied for the answers that both have; all other rows start at zero, as in the
    published fine-tuning. Raises ValueError if sizes do not match.
    """
    given = published.head
    if not given:
        return "the answer head starts at random: they hold none"
    own = head.state_dict()
    rows = published.answers
    # All but the last layer, whose rows depend on the data set's answers.
    fitting = {name: given[name] for name in own.keys() & given.keys() if not name.startswith("3.")}
    wrong = _other_sizes(own, fitting) or sorted(own.keys() - given.keys())
    if wrong:
        raise ValueError(f"weights {published.where} do not fit the answer head: {first_few(wrong, 3)}")
    if rows is None:
        head.load_state_dict(fitting, strict=False)
        return f"the answer head's last layer starts at random: they hold no {' or '.join(ANSWER_FILES)}"
    row_of = {answer: row for row, answer in enumerate(rows)}
    shared = [(index, row_of[answer]) for index, answer in enumerate(answers) if answer in row_of]
    for name in ("3.weight", "3.bias"):
        fitting[name] = torch.zeros_like(own[name])
        fitting[name][[index for index, _ in shared]] = given[name][[row for _, row in shared]]
    head.load_state_dict(fitting)
    return f"the answer head knows {len(shared)} of the {len(answers)} answers"


def _other_sizes(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{name} {list(given[name].shape)}, not {list(own[name].shape)}"
        for name in sorted(own.keys() & given.keys())
        if own[name].shape != given[name].shape
    ]


def _find_state(folder: Path) -> list[Path]:
    safe = sorted(folder.glob(SAFE))
    pickled = [path for pattern in PICKLED for path in sorted(folder.glob(pattern))]
    if not safe and len(pickled) != 1:
        which = f"several ({first_few(path.name for path in pickled)})" if pickled else "none"
        raise ValueError(f"weights: {folder} must hold {SAFE}, or one of {' or '.join(PICKLED)}; it holds {which}")
    # Several safetensors files are the shards of one state; several pickles would be different states.
    return safe or pickled


def _hash(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:  # a digest of digests: the order and the borders of shards count
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def _read_state(path: Path) -> State:
    """Read a safetensors file, or a pickle of tensors without running code in it."""
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"weights: {path} is damaged ({_first_line(error)})") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types, for damaged files and for code in them
        raise ValueError(f"weights: {path} is damaged, or holds more than tensors, so it is not read") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights: {path} does not contain a dictionary of tensors")
    return dict(state)


def _read_answers(folder: Path, head: State) -> tuple[str, ...] | None:
    """Read the answers of the rows of the answer head's last layer; None if no file lists them."""
    lists = {name: _read_list(folder / name) for name in ANSWER_FILES if (folder / name).is_file()}
    if not lists or "3.weight" not in head:
        return None
    rows = len(head["3.weight"])
    fitting = [answers for answers in lists.values() if len(answers) == rows]
    if not fitting:
        counted = " and ".join(f"{name} lists {len(answers)}" for name, answers in lists.items())
        raise ValueError(f"weights: the answer head in {folder} has {rows} answers, but {counted}")
    return fitting[0]


def _read_list(path: Path) -> tuple[str, ...]:
    """Read a list of answers, or of objects with the answer under `ans`."""
    answers: list[Any] = [one.get("ans") if isinstance(one, dict) else one for one in _read_json(path, list)]
    if not all(isinstance(answer, str) for answer in answers):
        raise ValueError(f"weights: {path} is not a list of answers")
    return tuple(answers)


def _read_json(path: Path, kind: type[Any]) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"weights: {path} is damaged ({_first_line(error)})") from error
    if not isinstance(content, kind):
        raise ValueError(f"weights: {path} must hold a {kind.__name__}")
    return content


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
