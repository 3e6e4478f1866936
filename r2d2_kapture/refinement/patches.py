"""Grey pyramids of images, and patches cut from them along affine frames.

Positions are float64 pixels, (0, 0) at the centre of the first one. A frame is a 2x2
matrix whose columns are the steps along x and y of one sample of a patch, in pixels of
the image. Patches are read by bilinear interpolation from the level whose pixels are
nearest to a sample in size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.refine import RefineConfig

Array = npt.NDArray[np.float64]

GREY = (0.299, 0.587, 0.114)
"""Weights of R, G and B, ITU-R BT.601."""

BLUR = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
"""Filter before every second pixel is taken: Burt and Adelson, "The Laplacian pyramid
as a compact image code", IEEE Transactions on Communications 1983."""

MIN_SIDE = 8
"""Pixels of the smallest level of a pyramid."""

GRADIENT_MARGIN = 1
"""Samples around a patch from which its gradients are taken."""

BLACK, MOST_BLACK = 2.0, 0.1
"""Grey level below which a sample is that of a mask or of the border of an undistorted
image, and the share of them with which a patch leaves the image."""

CHUNK_SAMPLES = 1 << 17
"""Samples that are worked on at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GreyImage:
    """An image and its halved levels, pixel (i, j) of level k at 2^k (i, j).

    Attributes:
        pixels: (P,) float32, of all levels one after another, row by row.
        sizes: (L, 2) int64 width and height of each level.
        starts: (L,) int64 index of each level's first pixel.
    """

    pixels: Tensor
    sizes: Tensor
    starts: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Templates:
    """Patches of reference observations.

    Attributes:
        pixels: (N, L, S, S) uint8, the finest layer first; all 0 where the patch leaves
            the image.
        zooms: (N,) float64, finest step relative to the frame that was given.
    """

    pixels: npt.NDArray[np.uint8]
    zooms: Array

    def __len__(self) -> int:
        return len(self.pixels)

    def layer_zooms(self, layer: int) -> Array:
        """(N,) float64, step of a layer relative to the frame that was given.

        Layer 1 has two samples in a pixel of the frame's level, or steps twice those of
        layer 0 if these are longer; each further one has steps twice as long.
        """
        return _layer_zooms(self.zooms, layer)

    def take(self, index: npt.NDArray[Any]) -> Templates:
        """The templates at the given positions, in that order."""
        return Templates(pixels=self.pixels[index], zooms=self.zooms[index])


def grey_image(
    image: npt.NDArray[np.uint8], device: torch.device = torch.device("cpu")
) -> GreyImage:
    """Pyramid of an image.

    Args:
        image: (H, W, 3) RGB or (H, W) grey.
        device: that it is kept on, and its patches are registered on.
    """
    level = torch.from_numpy(np.ascontiguousarray(image)).to(device).float()
    if level.ndim == 3:
        red, green, blue = (level[..., k] * GREY[k] for k in range(3))
        level = red + green + blue
    levels = [level]
    while min(levels[-1].shape) >= 2 * MIN_SIDE:
        levels.append(_halved(levels[-1]))
    counts = torch.tensor([0, *(one.numel() for one in levels[:-1])])
    return GreyImage(
        pixels=torch.cat([one.flatten() for one in levels]),
        sizes=torch.tensor([one.shape[::-1] for one in levels], device=device),
        starts=counts.cumsum(0).to(device),
    )


def _halved(level: Tensor) -> Tensor:
    """Every second pixel of the blurred level, from the first."""
    for axis in (0, 1):
        columns = level.T if axis == 0 else level
        padded = F.pad(columns[None], (2, 2), mode="replicate")[0]
        width = columns.shape[1]
        parts = [padded[:, k : k + width : 2] * BLUR[k] for k in range(len(BLUR))]
        blurred = torch.stack(parts).sum(dim=0)
        level = blurred.T if axis == 0 else blurred
    return level.contiguous()


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """Where patches of one image are read: on which level, along which frames.

    Attributes:
        image: that is read.
        radius: samples on either side.
        frames: (N, 2, 2) float64 of a sample, in pixels of the image.
        scales: (N,) float64 pixels of the image in one of the level.
        widths: (N,) int32 of the level.
        starts: (N,) int32 first pixel of the level.
        limits: (N, 2) float64 largest x and y that are read.
    """

    image: GreyImage
    radius: int
    frames: Tensor
    scales: Tensor
    widths: Tensor
    starts: Tensor
    limits: Tensor

    @classmethod
    def of(cls, image: GreyImage, frames: Tensor, radius: int) -> Windows:
        """On the level whose pixels are nearest to a sample in size."""
        steps = torch.linalg.det(frames).abs().sqrt().nan_to_num(nan=1)
        level = steps.clamp(1, 2**30).log2().round().long()
        level = level.clamp(max=len(image.sizes) - 1)
        return cls(
            image=image,
            radius=radius,
            frames=frames,
            scales=2.0 ** level.double(),
            widths=image.sizes[level, 0].int(),
            starts=image.starts[level].int(),
            limits=(image.sizes[level] - 1).double(),
        )

    def take(self, rows: Tensor) -> Windows:
        """The windows at the given positions."""
        names = ("frames", "scales", "widths", "starts", "limits")
        taken = {name: getattr(self, name)[rows] for name in names}
        return Windows(image=self.image, radius=self.radius, **taken)

    def inside(self, places: Tensor, shape: Tensor, margin: int = 0) -> Tensor:
        """(N,) bool, whether patches lie in the image.

        Args:
            places: (N, 2) float64 pixels of their middles.
            shape: (N, 2, 2) float64 that the frames are multiplied by.
            margin: samples around them.
        """
        here = places / self.scales[:, None]
        reach = (self._steps(shape).abs().sum(dim=2)) * (self.radius + margin)
        return ((here >= reach) & (here + reach < self.limits)).all(dim=1)

    def read(self, places: Tensor, shape: Tensor, margin: int = 0) -> Tensor:
        """(N, S * S) float32 samples of patches that are inside, see there."""
        here = places / self.scales[:, None]
        whole = here.floor()
        part = (here - whole).float()
        columns, rows = whole.int().unbind(dim=1)
        first = self.starts + rows * self.widths + columns
        xu, xv, yu, yv = self._steps(shape).float().flatten(1).unbind(dim=1)
        radius = self.radius + margin
        line = torch.arange(-radius, radius + 1, device=places.device).float()
        v, u = (g.flatten() for g in torch.meshgrid(line, line, indexing="ij"))
        x = xu[:, None] * u + (xv[:, None] * v + part[:, :1])
        y = yu[:, None] * u + (yv[:, None] * v + part[:, 1:])
        left, top = x.floor(), y.floor()
        index = top.int() * self.widths[:, None] + left.int() + first[:, None]
        x, y = x - left, y - top
        above = self._mixed(index, x)
        below = self._mixed(index + self.widths[:, None], x)
        return torch.lerp(above, below, y)

    def _steps(self, shape: Tensor) -> Tensor:
        """(N, 2, 2) float64 of a sample on the level."""
        return product(self.frames, shape) / self.scales[:, None, None]

    def _mixed(self, index: Tensor, right: Tensor) -> Tensor:
        """Pixels mixed with their right neighbours."""
        flat = index.flatten()
        first = self.image.pixels.index_select(0, flat)
        second = self.image.pixels.index_select(0, flat + 1)
        return torch.lerp(first.view_as(right), second.view_as(right), right)


def product(first: Tensor, second: Tensor) -> Tensor:
    """(N, 2, 2) products of matrices."""
    return (first[:, :, :, None] * second[:, None, :, :]).sum(dim=2)


def patch_shape(config: RefineConfig) -> tuple[int, int, int]:
    """(L, S, S) of the pixels of a template."""
    side = 2 * (config.patch_radius + GRADIENT_MARGIN) + 1
    return config.layers, side, side


def config_of(shape: tuple[int, ...]) -> RefineConfig:
    """The default settings, for templates of (L, S, S) pixels.

    Raises:
        ConfigError: no templates have this shape.
    """
    layers, side = shape[:2]
    config = RefineConfig(patch_radius=side // 2 - GRADIENT_MARGIN, layers=layers)
    require(
        patch_shape(config) == shape,
        f"patches: found a shape of {shape}, expected (L, S, S) with an odd S",
    )
    return config


def cut_templates(
    image: GreyImage, keypoints: Array, frames: Array, config: RefineConfig
) -> Templates:
    """Cut the patches that other observations are registered against.

    Args:
        image: of the keypoints.
        keypoints: (N, 2) float64 pixels.
        frames: (N, 2, 2) float64, of samples of the level that each was found at.
        config: radius and number of layers.
    """
    radius = config.patch_radius + GRADIENT_MARGIN
    side = 2 * radius + 1
    with np.errstate(invalid="ignore", over="ignore"):  # such frames are not read
        steps = np.sqrt(np.abs(np.linalg.det(frames)))
        zooms = 1 / np.maximum(steps, np.finfo(np.float64).tiny)
        layers = [
            torch.from_numpy(frames * _layer_zooms(zooms, layer)[:, None, None])
            for layer in range(config.layers)
        ]
    pixels = np.zeros((len(keypoints), config.layers, side, side), np.uint8)
    places = torch.from_numpy(keypoints).to(image.pixels.device)
    layers = [layer.to(places.device) for layer in layers]
    shape = torch.eye(2, dtype=torch.float64, device=places.device)[None]
    for rows in torch.split(torch.arange(len(keypoints)), chunk_rows(side)):
        for layer in range(config.layers):
            around = Windows.of(image, layers[layer][rows], radius)
            inside = around.inside(places[rows], shape).nonzero()[:, 0]
            grey = around.take(inside).read(places[rows][inside], shape)
            shown = shows_picture(grey)
            cut = (grey * shown[:, None]).round().clamp(0, 255).to(torch.uint8)
            pixels[rows[inside.cpu()], layer] = (
                cut.cpu().numpy().reshape(-1, side, side)
            )
    return Templates(pixels=pixels, zooms=zooms)


def shows_picture(samples: Tensor) -> Tensor:
    """(N,) bool, whether (N, P) samples are not the black of a mask or a border."""
    return (samples < BLACK).float().mean(dim=1) <= MOST_BLACK


def _layer_zooms(zooms: Array, layer: int) -> Array:
    """See Templates.layer_zooms."""
    if layer == 0:
        return zooms
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        halvings = np.maximum(np.round(-np.log2(zooms)) - 1, 1) + layer - 1
        return np.asarray(zooms * 2.0**halvings)


def chunk_rows(side: int) -> int:
    """Patches of side^2 samples that are worked on at a time."""
    return max(1, CHUNK_SAMPLES // side**2)
