"""Load vision models of the `transformers` library, and compute patch features with them."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vqabench.errors import InputError, VqabenchError, first_few

if TYPE_CHECKING:
    from PIL.Image import Image


LARGEST_SIDE = 4096
"""Pixels; a limit far above that of real models, so that a wrong setting does not fill the memory."""


class _ProcessorSettings(msgspec.Struct, frozen=True):
    """The keys of `preprocessor_config.json` that matter here.

    `AutoImageProcessor` is not used: most of its classes crop, some of them cannot do otherwise, and the numbers
    they return depend on whether torchvision is installed.
    """

    image_mean: tuple[float, float, float] | None = None
    image_std: tuple[float, float, float] | None = None
    rescale_factor: float = 1 / 255
    resample: Annotated[int, msgspec.Meta(ge=0, le=5)] = 3
    """Pillow's number of a filter."""
    do_rescale: bool | None = True
    do_normalize: bool | None = True
    do_flip_channel_order: bool | None = False
    size: Any = None
    crop_size: Any = None

    def find_normalisation(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return mean and standard deviation of each colour. Raises ValueError if the model wants anything else."""
        if not self.do_rescale or self.do_flip_channel_order:
            raise ValueError("needs pixels that are not rescaled, or colours in reverse order")
        if not self.do_normalize:
            return np.zeros(3, np.float32), np.ones(3, np.float32)
        if self.image_mean is None or self.image_std is None:
            raise ValueError("has no image_mean or no image_std")
        if not all(self.image_std):
            raise ValueError("has an image_std of 0")
        return np.array(self.image_mean, np.float32), np.array(self.image_std, np.float32)


@dataclass(frozen=True)
class VisionModel:
    """A vision model, and the form of its input."""

    name: str
    network: nn.Module
    device: torch.device
    side: int
    """Pixels: an image is resized to this square, the whole of it, so that regions cover the whole image."""
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    scale: float
    """Of pixels, which are from 0 to 255: 1/255, mostly."""
    resample: int
    """Pillow's number of the filter."""

    def prepare(self, image: Image) -> NDArray[np.float32]:
        """Return the input of the model for an image: [3, side, side]."""
        resized = image.resize((self.side, self.side), self.resample)
        pixels = np.asarray(resized, np.float32) * np.float32(self.scale)
        return np.ascontiguousarray(((pixels - self.mean) / self.deviation).transpose(2, 0, 1))

    @torch.inference_mode()
    def patches(self, inputs: NDArray[np.float32]) -> Tensor:
        """Return the features of each patch: float32 [B, V, G, G], on the device."""
        half = torch.autocast("cuda", torch.float16) if self.device.type == "cuda" else contextlib.nullcontext()
        with half:
            output = self.run(torch.from_numpy(inputs).to(self.device))
        features = output.float()
        if features.ndim == 4:  # a convolutional network
            if features.shape[2] != features.shape[3]:
                shape = list(features.shape[2:])
                raise InputError(f"--model {self.name}: returns {shape} patches, which do not form a square")
            return features
        patch: Any = getattr(self.network.config, "patch_size", None)
        if not isinstance(patch, int):
            raise InputError(f"--model {self.name}: has no patches of one size")
        grid, tokens = self.side // patch, features.shape[1]
        if tokens < grid * grid:
            raise InputError(f"--model {self.name}: returns {tokens} tokens, but has {grid} x {grid} patches")
        # The patches come last, after a class token and registers.
        return features[:, -grid * grid :].transpose(1, 2).reshape(len(features), -1, grid, grid)

    def run(self, inputs: Tensor) -> Tensor:
        """Return the output of the network: tokens [B, T, V], or [B, V, G, G] if it is convolutional.

        Raises InputError if it cannot take images of this size.
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
        """Return the SHA-256 of all weights, since a name may stand for other weights later."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()


def load_model(name: str, revision: str | None, device: torch.device) -> VisionModel:
    """Load a model from a folder, or from the Hugging Face hub by its name; its own code is never run.

    Only the vision part of a model of text and images is kept. Raises InputError if it cannot be loaded.
    """
    try:
        import transformers
        from PIL import Image  # noqa: F401
    except ImportError as error:
        raise InputError(f'extraction needs more ({error}): pip install "vqabench[extract]"') from error
    _check_folder(name, revision)
    with _quiet(transformers):
        try:
            found, _ = transformers.ImageProcessingMixin.get_image_processor_dict(name, revision=revision)
            model, loaded = transformers.AutoModel.from_pretrained(
                name,
                revision=revision,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except Exception as error:  # a damaged file may raise whatever its reader does
            where = "" if Path(name).is_dir() else " (no such folder, and not available from the Hugging Face hub)"
            raise InputError(f"--model {name}: cannot be loaded{where}: {first_line(error)}") from error
    network = getattr(model, "vision_model", model)
    if getattr(network, "main_input_name", "pixel_values") != "pixel_values":
        raise InputError(f"--model {name}: takes {network.main_input_name}, no images")
    try:
        settings = msgspec.convert(found, _ProcessorSettings)
        mean, deviation = settings.find_normalisation()
    except ValueError as error:  # msgspec's own are among them
        raise InputError(f"--model {name}: preprocessor_config.json: {error}") from error
    side = _find_side(settings, network, name)
    made = VisionModel(
        name, network.to(device).eval(), device, side, mean, deviation, settings.rescale_factor, settings.resample
    )
    _check_whole(made, {*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])})
    return made


def first_line(error: Exception) -> str:
    """Return the first sentence of a message that may be long."""
    return re.split(r"(?<=[.!?])\s|\n", str(error).strip())[0][:500] or type(error).__name__


def _check_folder(name: str, revision: str | None) -> None:
    """Raise InputError if the name is that of a folder that is missing, or does not hold a model."""
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


def _check_whole(model: VisionModel, missing: set[str]) -> None:
    """Raise InputError if a checkpoint lacks weights that the patches depend on: they would be random."""
    lacking = {key.removeprefix("vision_model.") for key in missing} & set(model.network.state_dict())
    if not lacking:
        return
    parameters = dict(model.network.named_parameters())
    with torch.enable_grad():
        output = model.run(torch.zeros(1, 3, model.side, model.side, device=model.device))
        gradients = torch.autograd.grad(output.sum(), list(parameters.values()), allow_unused=True)
    # Many checkpoints lack poolers and heads, which the patches do not depend on.
    unused = {name for name, gradient in zip(parameters, gradients, strict=True) if gradient is None}
    if lacking - unused:
        message = first_few(sorted(lacking - unused))
        raise InputError(f"--model {model.name}: the checkpoint lacks weights of the model: {message}")


def _find_side(settings: _ProcessorSettings, network: Any, name: str) -> int:
    """Return the side of the input: what images are cropped or resized to, else what the model was trained with."""
    for size in (settings.crop_size, settings.size, getattr(network.config, "image_size", None)):
        side = size.get("height", size.get("shortest_edge")) if isinstance(size, dict) else size
        if isinstance(side, int) and side > LARGEST_SIDE:
            raise InputError(f"--model {name}: wants images of {side:,} pixels a side")
        if isinstance(side, int) and side > 0:
            return side
    raise InputError(f"--model {name}: its configuration does not give the image size")


@contextlib.contextmanager
def _quiet(transformers: Any) -> Any:
    """Suppress progress bars and warnings: weights that the text part lacks do not matter."""
    transformers.utils.logging.disable_progress_bar()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
