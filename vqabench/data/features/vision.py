"""Vision models of the `transformers` library as extractors of patch features."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vqabench.errors import InputError, VqabenchError, first_few

if TYPE_CHECKING:
    from PIL.Image import Image


LARGEST_SIDE = 4096
"""Pixels: a square of a thousand times more would not fit into any memory."""


@dataclass(frozen=True)
class VisionModel:
    """A model with what its input must look like."""

    name: str
    network: nn.Module
    side: int
    """Pixels: an image is resized to this square, the whole of it, so that regions cover the whole image."""
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    scale: float
    """Of pixels, which are from 0 to 255: 1/255, mostly."""
    resample: int
    """Pillow's number of the filter."""

    def prepare(self, image: Image) -> NDArray[np.float32]:
        """Turn an image into the model's input: [3, side, side]."""
        resized = image.resize((self.side, self.side), self.resample)
        pixels = np.asarray(resized, np.float32) * np.float32(self.scale)
        return np.ascontiguousarray(((pixels - self.mean) / self.deviation).transpose(2, 0, 1))

    @torch.inference_mode()
    def patches(self, inputs: NDArray[np.float32], device: torch.device) -> Tensor:
        """Give the features of each patch: float32 [B, V, G, G], on the device."""
        half = torch.autocast("cuda", torch.float16) if device.type == "cuda" else contextlib.nullcontext()
        with half:
            output = self.run(torch.from_numpy(inputs).to(device))
        if output.ndim == 4:  # a convolutional network
            return _square(output.float(), self.name)
        return _arrange(output.float(), self._grid(), self.name)

    def run(self, inputs: Tensor) -> Tensor:
        """Give what the network makes of images [B, 3, side, side]: [B, T, V], or [B, V, G, G] where it convolves.

        Raises InputError where it cannot take them.
        """
        try:
            output: Tensor = self.network(pixel_values=inputs).last_hidden_state
        except torch.OutOfMemoryError as error:
            message = f"no memory for {len(inputs)} images at once; try a smaller --batch-size"
            raise VqabenchError(message) from error
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            size = f"{self.side} x {self.side}"
            raise InputError(f"--model {self.name}: cannot take images of {size}: {first_line(error)}") from error
        return output

    def hash_weights(self) -> str:
        """Give the SHA-256 of all weights: a name may come to mean others."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def _grid(self) -> int:
        patch: Any = getattr(self.network.config, "patch_size", None)
        if not isinstance(patch, int):
            raise InputError(f"--model {self.name}: has no patches of one size")
        return self.side // patch


def _square(features: Tensor, name: str) -> Tensor:
    if features.shape[2] != features.shape[3]:
        raise InputError(f"--model {name}: gives {list(features.shape[2:])} patches, which do not form a square")
    return features


def _arrange(tokens: Tensor, grid: int, name: str) -> Tensor:
    """Drop what stands before the patches, such as a class token and registers: [B, T, V] to [B, V, G, G]."""
    if tokens.shape[1] < grid * grid:
        raise InputError(f"--model {name}: gives {tokens.shape[1]} tokens, but has {grid} x {grid} patches")
    return tokens[:, -grid * grid :].transpose(1, 2).reshape(len(tokens), -1, grid, grid)


def load_model(name: str, revision: str | None, device: torch.device) -> VisionModel:
    """Load a model from a folder, or from the Hugging Face hub by its name; its own code is never run.

    Of a model of text and images the vision part is kept. Raises InputError where it cannot be loaded.
    """
    try:
        import transformers
        from PIL import Image  # noqa: F401
    except ImportError as error:
        raise InputError(f'extraction needs more ({error}): pip install "vqabench[extract]"') from error
    _check_folder(name, revision)
    with _quiet(transformers):
        try:
            settings, _ = transformers.ImageProcessingMixin.get_image_processor_dict(name, revision=revision)
            model, loaded = transformers.AutoModel.from_pretrained(
                name,
                revision=revision,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except Exception as error:  # a damaged file may raise whatever its reader does
            where = "" if Path(name).is_dir() else " (no such folder, and the Hugging Face hub did not give it)"
            raise InputError(f"--model {name}: cannot be loaded{where}: {first_line(error)}") from error
    if not isinstance(settings, dict):
        raise InputError(f"--model {name}: its preprocessor_config.json is not a table of settings")
    network = getattr(model, "vision_model", model)
    if getattr(network, "main_input_name", "pixel_values") != "pixel_values":
        raise InputError(f"--model {name}: takes {network.main_input_name}, no images")
    mean, deviation = _normalisation(settings, name)
    side = _side(settings, network, name)
    scale, resample = _number(settings, "rescale_factor", 1 / 255, name), _number(settings, "resample", 3, name)
    if resample not in range(6):
        raise InputError(f"--model {name}: its image processor has no usable resample: {resample}")
    made = VisionModel(name, network.to(device).eval(), side, mean, deviation, scale, int(resample))
    _check_whole(made, {*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])}, device)
    return made


def first_line(error: Exception) -> str:
    """Give what is essential of a message that may be long: its first sentence."""
    return re.split(r"(?<=[.!?])\s|\n", str(error).strip())[0][:500] or type(error).__name__


def _check_folder(name: str, revision: str | None) -> None:
    """Raise InputError where a folder is meant that is not there, or is no model's."""
    path = Path(name)
    if path.is_dir():
        missing = [file for file in ("config.json", "preprocessor_config.json") if not (path / file).is_file()]
        if missing:
            raise InputError(f"--model {name}: the folder holds no {' and no '.join(missing)}")
        if revision:
            raise InputError(f"--revision {revision}: a folder has no revisions; drop it")
    elif path.exists():
        raise InputError(f"--model {name}: is a file; name the folder that holds the model")
    elif path.is_absolute() or name.startswith(".") or name.count("/") > 1 or "\\" in name:
        raise InputError(f"--model {name}: there is no such folder")


def _check_whole(model: VisionModel, missing: set[str], device: torch.device) -> None:
    """Raise InputError where a checkpoint lacks weights that patches come from: they would be random."""
    lacking = {key.removeprefix("vision_model.") for key in missing} & set(model.network.state_dict())
    if not lacking:
        return
    parameters = dict(model.network.named_parameters())
    with torch.enable_grad():
        output = model.run(torch.zeros(1, 3, model.side, model.side, device=device))
        gradients = torch.autograd.grad(output.sum(), list(parameters.values()), allow_unused=True)
    # Poolers and heads, which many checkpoints lack, do not bear on the patches.
    unused = {name for name, gradient in zip(parameters, gradients, strict=True) if gradient is None}
    if lacking - unused:
        message = first_few(sorted(lacking - unused))
        raise InputError(f"--model {model.name}: the checkpoint lacks weights of the model: {message}")


def _number(settings: dict[str, Any], key: str, otherwise: float, name: str) -> float:
    value = settings.get(key, otherwise)
    if not isinstance(value, int | float):
        raise InputError(f"--model {name}: its image processor has no usable {key}: {value!r}")
    return value


def _normalisation(settings: dict[str, Any], name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give mean and deviation of each colour. Raises InputError where the model wants what is not done here."""
    if not settings.get("do_rescale", True) or settings.get("do_flip_channel_order"):
        raise InputError(f"--model {name}: needs pixels that are not rescaled, or colours in reverse order")
    if not settings.get("do_normalize", True):
        return np.zeros(3, np.float32), np.ones(3, np.float32)
    return _colours(settings, "image_mean", name), _colours(settings, "image_std", name)


def _colours(settings: dict[str, Any], key: str, name: str) -> NDArray[np.float32]:
    values = settings.get(key)
    if not isinstance(values, list) or len(values) != 3 or any(not isinstance(one, int | float) for one in values):
        raise InputError(f"--model {name}: says no {key} of three colours")
    if key == "image_std" and not all(values):
        raise InputError(f"--model {name}: has an image_std of 0")
    return np.array(values, np.float32)


def _side(settings: dict[str, Any], network: Any, name: str) -> int:
    """Find the side of the input: what images are cropped or resized to, else what the model was trained with."""
    for size in (settings.get("crop_size"), settings.get("size"), getattr(network.config, "image_size", None)):
        side = size.get("height", size.get("shortest_edge")) if isinstance(size, dict) else size
        if isinstance(side, int) and side > LARGEST_SIDE:
            raise InputError(f"--model {name}: wants images of {side:,} pixels a side")
        if isinstance(side, int) and side > 0:
            return side
    raise InputError(f"--model {name}: its configuration does not give the image size")


@contextlib.contextmanager
def _quiet(transformers: Any) -> Any:
    """Keep bars and warnings of loading to itself: what is missing of the text part is of no concern."""
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
