"""Extraction of D2-Net features, at one scale or at three.

Dusmanu et al., "D2-Net: A Trainable CNN for Joint Description and Detection of Local
Features", CVPR 2019, sections 3.1 and 4.3: the keypoints of a feature map are its hard
detections. At several scales (0.5, 1, 2) the map of a scale has the enlarged sum of
those below it added, and places found below are not searched again.

Levels are cut into tiles. Of a level is kept what the next one needs, its summed map
and the places found; of the last one nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r2d2_kapture.config.extract import D2NetConfig, Preprocessing
from r2d2_kapture.coordinates import image_from_feature_cell, image_from_level
from r2d2_kapture.core.allocator import HEAP_LIMIT_BYTES, trim_heap
from r2d2_kapture.core.backbones import open_backbone
from r2d2_kapture.core.extraction import Image, NetworkExtractor
from r2d2_kapture.core.hard_detection import (
    find_peaks,
    localize,
    strongest_patches,
)
from r2d2_kapture.core.pyramid import (
    normalize_rgb,
    shrink,
    subtract_caffe_mean,
    to_stored,
)
from r2d2_kapture.core.runtime import Runtime
from r2d2_kapture.core.selection import (
    Candidates,
    best_first,
    concatenate,
    no_candidates,
    sample_descriptors,
    unmasked,
)
from r2d2_kapture.core.tiles import Tile
from r2d2_kapture.core.upload import Masks, Upload
from r2d2_kapture.core.upsampling import upsample_window
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.models.d2net import D2Net
from r2d2_kapture.models.network import FeatureNetwork
from r2d2_kapture.types import FileStyle, LocalFeatures

SCALES = (0.5, 1.0, 2.0)
PATCH_SIDE = 92.0
"""Side in pixels of what a feature of VGG16 up to conv4_3 sees on a level."""

CELL = 4
"""Pixels of a level from one cell of its map to the next."""

MARGIN = 2 * CELL
"""Pixels around a keypoint that decide it: its neighbours, and theirs."""

MAP_NAMES = ("activation", "soft detection")

PREPROCESSING: dict[str, Callable[[Tensor], Tensor]] = {
    "caffe": subtract_caffe_mean,
    "torch": normalize_rgb,
}


@dataclass(frozen=True, kw_only=True)
class Below:
    """What the levels so far hand to the next one.

    Attributes:
        features: (B, h, w, D) sum of their maps, in the precision of the engine.
        detected: (B, h, w) bool, cells that were found.
        summed: how many maps were added up.
    """

    features: Tensor
    detected: Tensor
    summed: int


@dataclass(frozen=True, kw_only=True)
class Level:
    """One scale of a batch.

    Attributes:
        rank: from 0.
        scale: relative to the image that the network is given.
        pixels: (B, 3, H, W) float32, preprocessed.
        image_shape: rows and columns of the image at scale 1.
        banned: (B, h, w) bool, cells of its map that are not searched.
        below: of the levels before, if any.
    """

    rank: int
    scale: float
    pixels: Tensor
    image_shape: tuple[int, int]
    banned: Tensor
    below: Below | None

    @property
    def map_size(self) -> tuple[int, int]:
        """Rows and columns of its map."""
        return self.banned.shape[1], self.banned.shape[2]

    def image_x(self, cells: Tensor) -> Tensor:
        """Columns of the map as x in pixels of the image at scale 1."""
        level = image_from_feature_cell(cells)
        return image_from_level(
            level, self.pixels.shape[3], self.image_shape[1], "published"
        )

    def image_y(self, cells: Tensor) -> Tensor:
        """Rows of the map as y in pixels of the image at scale 1."""
        level = image_from_feature_cell(cells)
        return image_from_level(
            level, self.pixels.shape[2], self.image_shape[0], "published"
        )

    @property
    def summed(self) -> int:
        """How many maps are added up on this level."""
        return 1 if self.below is None else self.below.summed + 1


class D2NetExtractor(NetworkExtractor):
    """Turns images into LocalFeatures with one network and one set of settings.

    Args:
        network: D2-Net, in evaluation mode.
        config: settings of preprocessing, scales and keypoints.
        runtime: device, precision, tile size.

    Raises:
        ConfigError: the weights were trained with another preprocessing.
    """

    settings_class = D2NetConfig
    file_style = FileStyle(
        suffix=".d2-net", mat_suffix=".d2-net", scale_unit=PATCH_SIDE
    )

    def __init__(self, network: D2Net, config: D2NetConfig, runtime: Runtime) -> None:
        preprocessing = resolve_preprocessing(network, config.preprocessing)
        settings = dataclasses.replace(config, preprocessing=preprocessing)
        super().__init__(settings, runtime)
        activation = [nn.ReLU()] if config.relu else []
        self.backbone = open_backbone(nn.Sequential(*network.ops, *activation), runtime)
        self.descriptor_dim = network.descriptor_dim
        self._preprocess = PREPROCESSING[preprocessing]

    @classmethod
    def of_network(
        cls, network: D2Net, settings: D2NetConfig, runtime: Runtime
    ) -> Self:
        return cls(network, settings, runtime)

    def upload(self, images: Sequence[Image], masks: Masks = ()) -> Upload:
        """Bring images of equal size, (H, W, 3) uint8 RGB each, to the device.

        Those beyond the limits are shrunk first.
        """
        height, width = images[0].shape[:2]
        limits = self.settings.max_edge, self.settings.max_sum_edges
        shrunk = [shrink(image, *limits) for image in images]
        return self._uploader(shrunk, masks, image_size=(width, height))

    @torch.inference_mode()
    def extract_uploaded(self, upload: Upload) -> list[LocalFeatures]:
        """Extract the images of an upload, which share every pass of the network."""
        images = self._preprocess(upload.wait())
        dim, device = self.descriptor_dim, self.runtime.device
        best = [no_candidates(dim, device) for _ in images]
        scales = SCALES if self.settings.multiscale else (1.0,)
        below: Below | None = None
        for rank, scale in enumerate(scales):
            level = make_level(images, rank, scale, below)
            if level is not None:
                is_last = rank + 1 == len(scales)
                below = self._search(level, best, upload, is_last=is_last)
        height, width = images.shape[2:]
        return [_to_features(item, (width, height), upload.image_size) for item in best]

    @torch.inference_mode()
    def confidence_maps(self, image: Image) -> dict[str, npt.NDArray[np.float32]]:
        """What single-scale detection sees of an image.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            (h, w) float32 maps by name, a value for each cell: ``activation`` is the
            largest channel, over the largest of the map; ``soft detection`` how far
            that channel stands out among its neighbours, alpha of section 3.2,
            stretched to 0..1.
        """
        pixels = self._preprocess(self.upload([image]).wait())
        level = make_level(pixels, 0, 1.0, None)
        if level is None:
            return {name: np.zeros((1, 1), np.float32) for name in MAP_NAMES}
        patches = torch.zeros(*level.map_size, 3, 3)
        for tile in self._tiles(level):
            cells = tile.in_cells(CELL, *level.map_size)
            found = strongest_patches(self._features(level, tile, cells)[0])
            patches[cells.inner_of_whole] = found[cells.inner].cpu()
        relative = patches / patches.max().clamp_min(torch.finfo(torch.float32).tiny)
        activation = relative[:, :, 1, 1].clamp_min(0)
        alpha = F.softmax(relative.flatten(2), dim=2)[:, :, 4]
        span = (alpha.max() - alpha.min()).clamp_min(torch.finfo(torch.float32).tiny)
        soft = (alpha - alpha.min()) / span
        return dict(zip(MAP_NAMES, (activation.numpy(), soft.numpy())))

    def _search(
        self, level: Level, best: list[Candidates], upload: Upload, *, is_last: bool
    ) -> Below | None:
        """Add the keypoints of a level to those of each image, in ``best``."""
        height, width = level.map_size
        detected = level.banned.clone()
        shape = (len(best), height, width, self.descriptor_dim)
        kept = (
            None
            if is_last
            else torch.empty(shape, dtype=self.runtime.dtype, device=detected.device)
        )
        for tile in self._tiles(level):
            cells = tile.in_cells(CELL, height, width)
            features = self._features(level, tile, cells)
            if kept is not None:
                rows, columns = cells.inner_of_whole
                kept[:, rows, columns] = features[:, *cells.inner]
            for i, previous in enumerate(best):
                found = _detect(level, i, features[i], cells, detected[i])
                keep = upload.keep[i]
                if keep is not None:
                    size = level.image_shape[1], level.image_shape[0]
                    xy = to_stored(found.xy, size, upload.image_size)
                    found = found.take(unmasked(xy, keep))
                best[i] = _merge(previous, found, self.settings.max_keypoints)
            # the map of a tile must be gone before the next is computed
            del features
            if self.runtime.device.type == "cpu":
                trim_heap(HEAP_LIMIT_BYTES)
        if kept is None:
            return None
        return Below(features=kept, detected=detected, summed=level.summed)

    def _tiles(self, level: Level) -> Iterator[Tile]:
        height, width = level.pixels.shape[2], level.pixels.shape[3]
        return self.backbone.tiles(height, width, MARGIN)

    def _features(self, level: Level, tile: Tile, cells: Tile) -> Tensor:
        """(B, rows, columns, D) of a tile, with those of the levels below."""
        window = level.pixels[:, :, tile.top : tile.bottom, tile.left : tile.right]
        features = self.backbone(window)
        if level.below is None:
            return features
        rows = slice(cells.top, cells.top + features.shape[1])
        columns = slice(cells.left, cells.left + features.shape[2])
        enlarged = upsample_window(level.below.features, level.map_size, rows, columns)
        return enlarged.add_(features)


def resolve_preprocessing(
    network: FeatureNetwork, asked: Preprocessing | None
) -> Preprocessing:
    """The preprocessing asked for, else that of the weights, else caffe.

    Raises:
        ConfigError: the weights were trained with another one than asked for.
    """
    known = network.preprocessing
    if asked is not None and known is not None and asked != known:
        raise ConfigError(
            f"--preprocessing {asked}: found weights that were trained with {known}; "
            f"give --preprocessing {known}, or other weights"
        )
    return asked or known or "caffe"


def make_level(
    images: Tensor, rank: int, scale: float, below: Below | None
) -> Level | None:
    """Resize images to a scale; None where that is too small to have a map.

    Args:
        images: (B, 3, H, W) float32, preprocessed.
        rank, scale: of the level.
        below: of the levels before.
    """
    image_shape = images.shape[2], images.shape[3]
    height, width = (int(side * scale) for side in image_shape)
    map_height, map_width = height // CELL - 1, width // CELL - 1
    if min(map_height, map_width) < 1:
        return None
    shape = (len(images), map_height, map_width)
    if below is None:
        banned = torch.zeros(shape, dtype=torch.bool, device=images.device)
    else:
        seen = F.interpolate(below.detected[:, None].float(), shape[1:])  # nearest
        banned = seen[:, 0] > 0
    pixels = (
        images
        if scale == 1
        else F.interpolate(images, (height, width), mode="bilinear", align_corners=True)
    )
    return Level(
        rank=rank,
        scale=scale,
        pixels=pixels,
        image_shape=image_shape,
        banned=banned,
        below=below,
    )


def _detect(
    level: Level, image: int, features: Tensor, cells: Tile, detected: Tensor
) -> Candidates:
    """Keypoints that a tile of an image answers for, in pixels at scale 1.

    Args:
        level: that the tile is of.
        image: position in the batch.
        features: (rows, columns, D) of the tile.
        cells: the tile, on the map.
        detected: (h, w) bool of the whole map; what is found here is added.
    """
    peaks = find_peaks(features)
    rows, columns = peaks.rows + cells.top, peaks.columns + cells.left
    peaks = peaks.take(~level.banned[image, rows, columns])
    own = cells.answers_for(peaks.rows, peaks.columns)
    detected[peaks.rows[own] + cells.top, peaks.columns[own] + cells.left] = True
    peaks, offsets = localize(peaks)
    y = peaks.rows + cells.top + offsets[:, 0]
    x = peaks.columns + cells.left + offsets[:, 1]
    height, width = level.map_size
    chosen = cells.answers_for(peaks.rows, peaks.columns)
    chosen &= (y >= 0) & (x >= 0) & (y <= height - 1) & (x <= width - 1)
    peaks, y, x = peaks.take(chosen), y[chosen], x[chosen]
    rows, columns = peaks.rows + cells.top, peaks.columns + cells.left
    return Candidates(
        xy=torch.stack([level.image_x(x), level.image_y(y)], dim=1),
        scales=torch.full_like(x, level.scale),
        scores=peaks.values / level.summed,
        descriptors=sample_descriptors(features, x - cells.left, y - cells.top),
        order=((level.rank << 24) + rows << 24) + columns,
    )


def _merge(best: Candidates, found: Candidates, max_keypoints: int) -> Candidates:
    """Join keypoints, and keep the best where their number is limited."""
    joined = concatenate([best, found])
    if not max_keypoints or len(joined) <= max_keypoints:
        return joined
    return joined.take(best_first(joined.scores, joined.order, max_keypoints))


def _to_features(
    candidates: Candidates, network_size: tuple[int, int], image_size: tuple[int, int]
) -> LocalFeatures:
    """Rank keypoints, and bring them to the pixels of the stored image.

    Args:
        candidates: in pixels of the image that the network was given.
        network_size: (W, H) of that image.
        image_size: (W, H) as stored.
    """
    ranked = candidates.take(best_first(candidates.scores, candidates.order, 0))
    enlarged = max(image_size) / max(network_size)
    return LocalFeatures(
        keypoints=to_stored(ranked.xy, network_size, image_size).cpu().numpy(),
        scales=(PATCH_SIDE * enlarged / ranked.scales).cpu().numpy(),
        scores=ranked.scores.cpu().numpy(),
        descriptors=ranked.descriptors.cpu().numpy(),
        image_size=image_size,
    )
