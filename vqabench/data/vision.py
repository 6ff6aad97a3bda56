"""Vision models of the `transformers` library as extractors of patch features."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vqabench.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class VisionModel:
    """A model with what its input must look like."""

    name: str
    network: nn.Module
    side: int
    """Pixels: an image is resized to this square, the whole of it, so that regions cover the whole image."""
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    resample: int
    """Pillow's number of the filter."""

    def prepare(self, image: Image) -> NDArray[np.float32]:
        """Turn an image into the model's input: [3, side, side]."""
        resized = image.resize((self.side, self.side), self.resample)
        pixels = np.asarray(resized, np.float32) / 255
        return np.ascontiguousarray(((pixels - self.mean) / self.deviation).transpose(2, 0, 1))

    @torch.inference_mode()
    def patches(self, inputs: NDArray[np.float32], device: torch.device) -> Tensor:
        """Give the features of each patch: float32 [B, V, G, G], on the device."""
        pixels = torch.from_numpy(inputs).to(device)
        half = torch.autocast("cuda", torch.float16) if device.type == "cuda" else contextlib.nullcontext()
        with half:
            output = self.network(pixel_values=pixels).last_hidden_state
        if output.ndim == 4:  # a convolutional network
            return _square(output.float(), self.name)
        return _arrange(output.float(), self._grid(), self.name)

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
        raise InputError(f"--model {name}: gives {list(features.shape[2:])} patches, which is no square")
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
    with _quiet(transformers):
        try:
            settings, _ = transformers.ImageProcessingMixin.get_image_processor_dict(name, revision=revision)
            model = transformers.AutoModel.from_pretrained(
                name, revision=revision, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            told = " ".join(str(error).split())
            raise InputError(f"--model {name}: cannot be loaded: {told[:300]}") from error
    network = getattr(model, "vision_model", model)
    if getattr(network, "main_input_name", "pixel_values") != "pixel_values":
        raise InputError(f"--model {name}: takes {network.main_input_name}, no images")
    mean, deviation = _normalisation(settings, name)
    side = _side(settings, network, name)
    return VisionModel(name, network.to(device).eval(), side, mean, deviation, int(settings.get("resample", 3)))


def _normalisation(settings: dict[str, Any], name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give mean and deviation of each colour. Raises InputError where the model wants what is not done here."""
    if not settings.get("do_rescale", True) or settings.get("do_flip_channel_order"):
        raise InputError(f"--model {name}: wants pixels that are not rescaled, or colours turned over")
    if not settings.get("do_normalize", True):
        return np.zeros(3, np.float32), np.ones(3, np.float32)
    given = settings.get("image_mean"), settings.get("image_std")
    if any(not isinstance(values, list) or len(values) != 3 for values in given):
        raise InputError(f"--model {name}: says no image_mean and image_std of three colours")
    mean, deviation = (np.array(values, np.float32) for values in given)
    return mean, deviation


def _side(settings: dict[str, Any], network: Any, name: str) -> int:
    """Find the side of the input: what images are cropped or resized to, else what the model was trained with."""
    for size in (settings.get("crop_size"), settings.get("size"), getattr(network.config, "image_size", None)):
        side = size.get("height", size.get("shortest_edge")) if isinstance(size, dict) else size
        if isinstance(side, int) and side > 0:
            return side
    raise InputError(f"--model {name}: says nowhere how large its images are")


@contextlib.contextmanager
def _quiet(transformers: Any) -> Any:
    """Keep bars and warnings of loading to itself: what is missing of the text part is of no concern."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
