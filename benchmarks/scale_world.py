"""A world of streets, of any length, and the exact features of the images taken there.

A camera drives along streets of 1,000 images and looks at their points: a quarter of
what an image shows is new, so that it shares three, two and one quarters with the three
images that follow it in its street, however many images there are. Queries are taken
half-way between images. Points and descriptors follow from their number. Images say in
their first pixels where they were taken, which the extractor ``exact`` reads.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from r2d2_kapture.core.extraction import Extractor, Image, Mask, WeightsKind
from r2d2_kapture.core.runtime import Runtime
from r2d2_kapture.types import LocalFeatures

Array = npt.NDArray[np.float64]

STREET, APART = 1000, 100.0
"""Images of a street, one a metre, and the metres from one street to the next."""
SHARED = 3
"""Images after an image that share points with it."""
SIZE, FOCAL = (320, 240), 250.0
"""Of images: width and height, and focal length in pixels."""
BITS = 32
"""Pixels of the first row that say where an image was taken."""


@dataclass(frozen=True, order=True)
class Place:
    """Where an image is taken: half metres driven since the first street began.

    Attributes:
        half: even for images of the map, odd for queries between two of them.
    """

    half: int

    @property
    def street(self) -> int:
        """Number of the street."""
        return self.half // (2 * STREET)

    @property
    def along(self) -> float:
        """Metres from the beginning of the street."""
        return self.half % (2 * STREET) / 2

    @property
    def timestamp(self) -> int:
        """Of a sequence that ends with the street."""
        return 3 * STREET * self.street + int(self.along)

    @property
    def centre(self) -> Array:
        """(3,) metres."""
        return np.array([self.along, 0.0, APART * self.street])

    @property
    def quaternion(self) -> tuple[float, float, float, float]:
        """Of the rotation from the world to the camera, w first: it looks around."""
        angle = 0.1 * math.sin(0.7 * self.half)
        return math.cos(angle / 2), 0.0, math.sin(angle / 2), 0.0

    @property
    def rotation(self) -> Array:
        """(3, 3) from the world to the camera."""
        w, _, y, _ = self.quaternion
        cos, sin = w * w - y * y, 2 * w * y
        return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])

    @property
    def translation(self) -> Array:
        """(3,) from the world to the camera."""
        return -self.rotation @ self.centre

    def blocks(self) -> list[tuple[int, int]]:
        """Blocks of points that an image shows: street, and number in the street."""
        first = int(self.along)
        return [(self.street, first + number) for number in range(SHARED + 1)]

    def pixels(self) -> npt.NDArray[np.uint8]:
        """(H, W) grey: the image."""
        image = np.full(SIZE[::-1], 128, np.uint8)
        image[0, :BITS] = 255 * (self.half >> np.arange(BITS) & 1)
        return image

    @classmethod
    def read(cls, image: Image) -> Place:
        """Of an (H, W, 3) image."""
        bits = image[0, :BITS, 0] > 127
        return cls(int(bits @ (1 << np.arange(BITS))))


@functools.lru_cache(64)
def points(
    street: int, block: int, count: int, dim: int
) -> tuple[Array, npt.NDArray[Any]]:
    """(N, 3) points of a block in metres, and their (N, D) float32 descriptors."""
    rng = np.random.default_rng([street, block])
    xyz = rng.uniform([-0.5, -2, 6], [0.5, 2, 12], (count, 3))
    xyz += [block - SHARED / 2, 0, APART * street]
    descriptors = rng.normal(size=(count, dim)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return xyz, descriptors


def features(place: Place, keypoints: int, dim: int) -> LocalFeatures:
    """Projections of the points that an image shows, without error."""
    count = keypoints // (SHARED + 1)
    shown = [points(*block, count, dim) for block in place.blocks()]
    xyz = np.concatenate([xyz for xyz, _ in shown])
    seen = (xyz - place.centre) @ place.rotation.T
    xy = FOCAL * seen[:, :2] / seen[:, 2:] + (np.array(SIZE) - 1) / 2
    return LocalFeatures(
        keypoints=xy.astype(np.float32),
        scales=np.full(len(xy), 32, np.float32),
        scores=np.linspace(1, 0.5, len(xy), dtype=np.float32),
        descriptors=np.concatenate([descriptors for _, descriptors in shown]),
        image_size=SIZE,
    )


@dataclass(frozen=True, kw_only=True)
class ExactConfig:
    """Settings of exact features.

    Attributes:
        keypoints: of an image, a multiple of 4.
        dim: values of a descriptor.
    """

    extractor: ClassVar[str] = "exact"

    keypoints: int = 64
    dim: int = 32


class ExactExtractor(Extractor):
    """Extraction without a network: what remains is the cost of all else."""

    settings_class: ClassVar[type] = ExactConfig
    needs: ClassVar[WeightsKind] = "none"

    def __init__(self, settings: ExactConfig, weights: None, runtime: Runtime) -> None:
        super().__init__(settings, weights, runtime)
        self.descriptor_dim = settings.dim

    def __call__(self, image: Image, mask: Mask | None = None) -> LocalFeatures:
        """The features of where the image was taken."""
        return features(Place.read(image), self.settings.keypoints, self.settings.dim)
