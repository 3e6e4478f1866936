"""The door for extractors: an image in, LocalFeatures out.

An extractor is one class in one file and one line of EXTRACTORS (config.extract), or of
the entry-point group ``r2d2_kapture.extractors`` of another package.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from r2d2_kapture.core.backbones import BACKBONES
from r2d2_kapture.core.pyramid import shrink, to_stored
from r2d2_kapture.core.runtime import Runtime
from r2d2_kapture.core.selection import unmasked
from r2d2_kapture.core.upload import Masks, Upload, Uploader
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.models.checkpoints import Checkpoint
from r2d2_kapture.models.files import Weights
from r2d2_kapture.models.network import FeatureNetwork
from r2d2_kapture.types import FileStyle, LocalFeatures

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
WeightsKind = Literal["checkpoint", "file", "none"]


class Extractor(ABC):
    """Turns images into LocalFeatures. Extractors inherit from it.

    Args:
        settings: an instance of ``settings_class``.
        weights: the file of ``--model``; None for an extractor without.
        runtime: what it runs on.

    Attributes:
        settings_class: frozen dataclass of its settings; its ``extractor`` is the name
            that the extractor is registered by.
        needs: its weights: a ``checkpoint`` of this package's networks, another
            ``file``, or ``none``.
        only_float32: whether it computes in float32 alone.
        engines: values of ``--engine`` that it computes with.
        runs_int8: whether it computes in int8.
        warnings: on how it computes, for reports.
        descriptor_dim: values of a descriptor; they are compared by L2 norm.
        descriptor_type: ``float32``, ``float16`` or ``uint8``.
        remake: makes another one, in another process on its own device.
    """

    settings_class: ClassVar[type]
    needs: ClassVar[WeightsKind] = "file"
    only_float32: ClassVar[bool] = True
    engines: ClassVar[tuple[str, ...]] = ("torch",)
    runs_int8: ClassVar[bool] = False
    warnings: tuple[str, ...] = ()
    descriptor_dim: int
    descriptor_type: str = "float32"
    remake: Callable[[], Extractor] | None = None

    def __init__(self, settings: Any, weights: Weights | None, runtime: Runtime):
        self.settings = settings
        self.weights = weights
        if self.only_float32:
            runtime = dataclasses.replace(runtime, precision="fp32")
        if runtime.engine not in self.engines:
            runtime = dataclasses.replace(runtime, engine="torch")
        self.runtime = runtime

    def __reduce__(self) -> Any:
        """How it is pickled: by what it was made of."""
        if self.remake is None:
            return super().__reduce__()
        return self.remake, ()

    @classmethod
    def open(cls, settings: Any, weights: Any, runtime: Runtime) -> Self:
        """Make one as the door does; see the class."""
        return cls(settings, weights, runtime)

    @abstractmethod
    def __call__(self, image: Image, mask: Mask | None = None) -> LocalFeatures:
        """Extract one image: (H, W, 3) uint8 RGB, pixels as stored.

        A mask, (H, W) bool, says which pixels may hold keypoints: those whose nearest
        pixel it leaves out are none, before the best are chosen.
        """

    @property
    def name(self) -> str:
        """That it is registered by."""
        return str(getattr(self.settings_class, "extractor"))

    @property
    def label(self) -> str:
        """Name of its features: that of the weights, if any."""
        return self.name if self.weights is None else self.weights.name

    @property
    def engine_version(self) -> str:
        """The engine, with its version; empty where there is no choice."""
        return self.runtime.engine_version if len(self.engines) > 1 else ""

    @property
    def file_style(self) -> FileStyle:
        """Of files of one image's features."""
        return FileStyle(suffix=f".{self.name}", mat_suffix=f".{self.name}.mat")

    @property
    def provenance(self) -> dict[str, Any]:
        """What decides the features, besides weights and precision, as manifests
        record it: by default the settings."""
        return dataclasses.asdict(self.settings)

    def upload(self, images: Sequence[Image], masks: Masks = ()) -> Any:
        """Bring (H, W, 3) uint8 RGB images of equal size to the device.

        Masks are those of the images, or none at all.
        """
        return list(zip(images, masks or [None] * len(images), strict=True))

    def extract_uploaded(self, upload: Any) -> list[LocalFeatures]:
        """Extract the images of an upload, by default one after another."""
        return [self(image, mask) for image, mask in upload]

    def extract_batch(self, images: Sequence[Image]) -> list[LocalFeatures]:
        """Extract (H, W, 3) uint8 RGB images of equal size."""
        return self.extract_uploaded(self.upload(images))

    def confidence_maps(self, image: Image) -> dict[str, npt.NDArray[np.float32]]:
        """Maps of an (H, W, 3) uint8 RGB image by name, (h, w) float32, 0 to 1; none
        by default."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Found:
    """Keypoints of one image, in any order.

    Attributes:
        xy: (N, 2) in pixels, (0, 0) at the centre of the first one.
        sides: (N,) of patches in pixels.
        scores: (N,), higher is better.
        descriptors: (N, D).
    """

    xy: Tensor
    sides: Tensor
    scores: Tensor
    descriptors: Tensor


class WholeExtractor(Extractor):
    """An extractor that sees an image at once; its limits, masks and ranks.

    Settings have ``max_edge``, the longest side in pixels, and ``max_keypoints``; 0 is
    no limit.
    """

    @abstractmethod
    def find(self, image: Image) -> Found:
        """All keypoints of an image within the limits, (H, W, 3) uint8 RGB."""

    @torch.inference_mode()
    def __call__(self, image: Image, mask: Mask | None = None) -> LocalFeatures:
        """Extract one image, where its mask allows: (H, W, 3) uint8 and (H, W) bool."""
        stored = image.shape[1], image.shape[0]
        seen = shrink(image, self.settings.max_edge)
        size = seen.shape[1], seen.shape[0]
        found = self.find(seen)
        xy = to_stored(found.xy, size, stored)
        kept = torch.argsort(found.scores, descending=True, stable=True)
        if mask is not None:
            kept = kept[unmasked(xy[kept], torch.from_numpy(mask).to(xy.device))]
        kept = kept[: self.settings.max_keypoints or None]
        return LocalFeatures(
            keypoints=xy[kept].float().cpu().numpy(),
            scales=(found.sides[kept] * (max(stored) / max(size)))
            .float()
            .cpu()
            .numpy(),
            scores=found.scores[kept].float().cpu().numpy(),
            descriptors=found.descriptors[kept].cpu().numpy(),
            image_size=stored,
        )


class NetworkExtractor(Extractor):
    """An extractor of one family of this package's networks; images share passes.

    On a GPU the copy of a batch runs in parallel with the passes of the previous one.
    """

    needs = "checkpoint"
    only_float32 = False
    engines = tuple(BACKBONES)

    def __init__(self, settings: Any, runtime: Runtime) -> None:
        super().__init__(settings, None, runtime)
        self._uploader = Uploader(runtime.device)

    @classmethod
    def open(cls, settings: Any, weights: Any, runtime: Runtime) -> Self:
        """Make one with a checkpoint, or with a network in memory.

        Raises:
            ConfigError: a network of another family.
        """
        is_file = isinstance(weights, Checkpoint)
        network: FeatureNetwork = weights.network if is_file else weights
        name = getattr(settings, "extractor")
        if network.family != name:
            raise ConfigError(
                f"--extractor {name}: the checkpoint holds {type(network).__name__}, "
                f"expected --extractor {network.family}, or a --model of {name}"
            )
        made = cls.of_network(network, settings, runtime)
        made.weights = weights if is_file else None
        return made

    @classmethod
    @abstractmethod
    def of_network(cls, network: Any, settings: Any, runtime: Runtime) -> Self:
        """Make one with a network of its family, in evaluation mode."""

    def __call__(self, image: Image, mask: Mask | None = None) -> LocalFeatures:
        """Extract one image, where its mask allows: (H, W, 3) uint8 and (H, W) bool."""
        return self.extract_uploaded(self.upload([image], [mask]))[0]

    def upload(self, images: Sequence[Image], masks: Masks = ()) -> Upload:
        """Bring images of equal size, (H, W, 3) uint8 RGB each, to the device."""
        return self._uploader(images, masks)

    @abstractmethod
    @torch.inference_mode()
    def extract_uploaded(self, upload: Upload) -> list[LocalFeatures]:
        """Extract the images of an upload, which share every pass of the network."""
