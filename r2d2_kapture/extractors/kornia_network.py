"""What extractors by kornia share: weights from a file, limits, masks, ranks."""

from __future__ import annotations

import pickle
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from r2d2_kapture.core.engine import Runtime
from r2d2_kapture.core.extraction import Extractor, Image, Mask
from r2d2_kapture.core.pyramid import shrink, to_stored
from r2d2_kapture.core.selection import unmasked
from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.models.files import Weights
from r2d2_kapture.types import PATCH_DIAMETER, LocalFeatures

Found = tuple[Tensor, Tensor, Tensor]


class KorniaExtractor(Extractor):
    """An extractor by a network of kornia, in float32.

    Settings have ``max_keypoints`` and ``max_edge``.

    Attributes:
        published: name of a file of its weights, for errors.

    Raises:
        ConfigError: kornia is not installed.
        CheckpointError: a file that is none of its weights.
    """

    published: ClassVar[str]
    descriptor_dim = 128

    def __init__(self, settings: Any, weights: Weights, runtime: Runtime) -> None:
        super().__init__(settings, weights, runtime)
        network = self.load(read_state(weights.path, self.name))
        if network is None:
            raise CheckpointError(
                f"{weights.path}: found no weights of {self.name}, expected those of "
                f"{self.published}"
            )
        self.network = network.eval().requires_grad_(False).to(runtime.device)

    @abstractmethod
    def load(self, state: dict[str, Tensor]) -> nn.Module | None:
        """The network with the tensors of a file; None if they are of another."""

    @abstractmethod
    def detect(self, pixels: Tensor) -> Found:
        """Keypoints of an image.

        Args:
            pixels: (1, 3, H, W) float32 RGB, 0 to 1.

        Returns:
            (N, 2) x and y, (0, 0) at the centre of the first pixel; (N,) scores; (N, D)
            descriptors of unit norm.
        """

    @torch.inference_mode()
    def __call__(self, image: Image, mask: Mask | None = None) -> LocalFeatures:
        """Extract one image; patches have R2D2's side, as the network has no scales."""
        stored = image.shape[1], image.shape[0]
        seen = shrink(image, self.settings.max_edge)
        size = seen.shape[1], seen.shape[0]
        pixels = torch.from_numpy(np.require(seen, requirements=["C", "W"]))
        pixels = pixels.to(self.runtime.device).permute(2, 0, 1)[None] / 255
        xy, scores, descriptors = self.detect(pixels)
        xy = to_stored(xy, size, stored)
        kept = torch.argsort(scores, descending=True, stable=True)
        if mask is not None:
            keep = torch.from_numpy(mask).to(xy.device)
            kept = kept[unmasked(xy[kept], keep)]
        kept = kept[: self.settings.max_keypoints or None]
        side = PATCH_DIAMETER * max(stored) / max(size)
        return LocalFeatures(
            keypoints=xy[kept].float().cpu().numpy(),
            scales=np.full(len(kept), side, np.float32),
            scores=scores[kept].float().cpu().numpy(),
            descriptors=descriptors[kept].float().cpu().numpy(),
            image_size=stored,
        )


def read_state(path: Path, extractor: str) -> dict[str, Tensor]:
    """The tensors of a file, loaded without running code from it.

    Raises:
        CheckpointError: it cannot be read, or holds no tensors by name.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: cannot be read as weights of {extractor}: {reason}"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("extractor"), dict):
        state = state["extractor"]
    named = isinstance(state, dict) and all(
        isinstance(value, Tensor) for value in state.values()
    )
    if not named or not state:
        raise CheckpointError(
            f"{path}: found no tensors by name, expected weights of {extractor}"
        )
    return {str(name): value for name, value in state.items()}


def fits(network: nn.Module, state: dict[str, Tensor]) -> bool:
    """Whether a file has every parameter of a network, in its shape, and no other."""
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    found = {name: value.shape for name, value in state.items()}
    lacking = shapes.keys() - found.keys()
    parameters = {name for name, _ in network.named_parameters()}
    return not lacking & parameters and found.items() <= shapes.items()
