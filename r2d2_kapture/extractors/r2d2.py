"""Multi-scale extraction of R2D2 and Fast-R2D2 features.

Revaud et al., "R2D2: Repeatable and Reliable Detector and Descriptor", NeurIPS 2019,
section 4.1: the network runs on every level of a pyramid; keypoints are the 3x3 maxima
of repeatability above both thresholds; their score is reliability x repeatability.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from r2d2_kapture.config.extract import PyramidConfig, R2D2Config, SelectionConfig
from r2d2_kapture.config.settings import names_of
from r2d2_kapture.coordinates import image_from_level
from r2d2_kapture.core.allocator import HEAP_LIMIT_BYTES, trim_heap
from r2d2_kapture.core.engine import Engine, FeatureMaps
from r2d2_kapture.core.extraction import NetworkExtractor
from r2d2_kapture.core.pyramid import (
    Level,
    iterate_levels,
    normalize_rgb,
    plan_levels,
)
from r2d2_kapture.core.runtime import Runtime
from r2d2_kapture.core.selection import (
    Candidates,
    best_first,
    concatenate,
    local_maxima,
    no_candidates,
    sample_descriptors,
    subpixel_offsets,
    unmasked,
)
from r2d2_kapture.core.tiles import Tile
from r2d2_kapture.core.upload import Upload
from r2d2_kapture.extractors.int8 import int8_weights
from r2d2_kapture.extractors.r2d2_whole import WholeLevels
from r2d2_kapture.models.network import DenseNetwork
from r2d2_kapture.types import PATCH_DIAMETER, R2D2_FILES, LocalFeatures

MAXIMUM_MARGIN = 2
"""Pixels around a keypoint that its 3x3 maximum, fit and descriptor can read."""


class R2D2Extractor(NetworkExtractor):
    """Turns images into LocalFeatures with one network and one set of settings.

    Args:
        network: R2D2 or Fast-R2D2, in evaluation mode.
        pyramid: which scales are searched.
        selection: which pixels become keypoints.
        runtime: device, precision, tile size.
    """

    settings_class = R2D2Config
    runs_int8 = True
    file_style = R2D2_FILES

    def __init__(
        self,
        network: DenseNetwork,
        pyramid: PyramidConfig,
        selection: SelectionConfig,
        runtime: Runtime,
    ) -> None:
        parts = {PyramidConfig: pyramid, SelectionConfig: selection}
        values = {n: getattr(v, n) for kind, v in parts.items() for n in names_of(kind)}
        super().__init__(R2D2Config(**values), runtime)
        quantization = None
        if runtime.precision == "int8":
            quantization, self.warnings = int8_weights(network)
        self.engine = Engine(network, runtime, quantization)
        self.descriptor_dim = network.descriptor_dim
        on_gpu = runtime.device.type == "cuda" and self.settings.top_k > 0
        self._whole = WholeLevels(self.engine, self.settings) if on_gpu else None

    @classmethod
    def of_network(
        cls, network: DenseNetwork, settings: R2D2Config, runtime: Runtime
    ) -> Self:
        return cls(network, settings, settings, runtime)

    @torch.inference_mode()
    def extract_uploaded(self, upload: Upload) -> list[LocalFeatures]:
        """Extract the images of an upload, which share every pass of the network."""
        if self._whole is not None and self._whole.takes(upload):
            return self._whole(upload)
        count, height, width, _ = upload.pixels.shape
        levels = plan_levels(height, width, self.settings)
        pixels = normalize_rgb(upload.wait())
        dim, device = self.descriptor_dim, self.runtime.device
        best = [no_candidates(dim, device) for _ in range(count)]
        pyramid = iterate_levels(pixels, levels, self.settings.coordinates)
        for rank, (level, level_pixels) in enumerate(pyramid):
            for tile in self.engine.tiles(level.height, level.width, MAXIMUM_MARGIN):
                window = level_pixels[
                    :, :, tile.top : tile.bottom, tile.left : tile.right
                ]
                maps = self.engine(window)
                for i, previous in enumerate(best):
                    best[i] = self._merge(previous, maps, i, tile, level, rank, upload)
                # the maps of a tile must be gone before the next is computed
                del maps
                if self.runtime.device.type == "cpu":
                    trim_heap(HEAP_LIMIT_BYTES)
        return [self._to_features(item, (width, height)) for item in best]

    @torch.inference_mode()
    def confidence_maps(
        self, image: npt.NDArray[np.uint8]
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Reliability and repeatability of the largest level searched.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            (h, w) float32 maps by name, 0 to 1, in pixels of that level; 0 where the
            network has no output, as in the last column of an odd width at half size.
        """
        height, width = image.shape[:2]
        levels = plan_levels(height, width, self.settings)
        pixels = normalize_rgb(self.upload([image]).wait())
        level, level_pixels = next(
            iterate_levels(pixels, levels, self.settings.coordinates)
        )
        stitched = torch.zeros(2, level.height, level.width)
        for tile in self.engine.tiles(level.height, level.width, margin=0):
            maps = self.engine(
                level_pixels[:, :, tile.top : tile.bottom, tile.left : tile.right]
            )
            both = torch.cat([maps.reliability, maps.repeatability]).cpu()
            inner_rows, inner_columns = tile.inner
            inner = both[:, inner_rows, inner_columns]
            rows, columns = inner.shape[1:]
            stitched[
                :,
                tile.inner_top : tile.inner_top + rows,
                tile.inner_left : tile.inner_left + columns,
            ] = inner
        reliability, repeatability = stitched.numpy()
        return {"reliability": reliability, "repeatability": repeatability}

    def _merge(
        self,
        best: Candidates,
        maps: FeatureMaps,
        index: int,
        tile: Tile,
        level: Level,
        rank: int,
        upload: Upload,
    ) -> Candidates:
        """Add the keypoints of one tile and keep the best, described."""
        settings = self.settings
        reliability = maps.reliability[index]
        repeatability = maps.repeatability[index]
        rows, columns = local_maxima(
            reliability,
            repeatability,
            reliability_thr=settings.reliability_thr,
            repeatability_thr=settings.repeatability_thr,
        )
        inner = tile.answers_for(rows, columns)
        rows, columns = rows[inner], columns[inner]
        keep = upload.keep[index]
        if keep is not None:
            found = self._level_xy(repeatability, rows, columns)
            allowed = unmasked(self._image_xy(found, tile, level, upload), keep)
            rows, columns = rows[allowed], columns[allowed]
        scores = reliability[rows, columns] * repeatability[rows, columns]
        order = ((rank << 24) + rows + tile.top << 24) + columns + tile.left
        survivors = best
        if 0 < settings.top_k < len(best) + len(scores):
            kept = best_first(
                torch.cat([best.scores, scores]),
                torch.cat([best.order, order]),
                settings.top_k,
            )
            survivors = best.take(torch.sort(kept[kept < len(best)]).values)
            new = kept[kept >= len(best)] - len(best)
            rows, columns, scores, order = (
                values[new] for values in (rows, columns, scores, order)
            )
        if not len(rows):
            return survivors
        xy = self._level_xy(repeatability, rows, columns)
        descriptors = sample_descriptors(
            maps.features[index], xy[:, 0], xy[:, 1], maps.doubled
        )
        added = Candidates(
            xy=self._image_xy(xy, tile, level, upload),
            scales=torch.full_like(xy[:, 0], level.scale),
            scores=scores,
            descriptors=descriptors,
            order=order,
        )
        return concatenate([survivors, added])

    def _level_xy(self, repeatability: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Where maxima are, in pixels of their tile: (N, 2)."""
        xy = torch.stack([columns, rows], dim=1).float()
        if not self.settings.subpixel:
            return xy
        return xy + subpixel_offsets(repeatability, rows, columns)

    def _image_xy(self, xy: Tensor, tile: Tile, level: Level, upload: Upload) -> Tensor:
        """Positions in a tile, (N, 2), as pixels of the image."""
        width, height = upload.image_size
        resize = self.settings.coordinates
        x = image_from_level(xy[:, 0] + tile.left, level.width, width, resize)
        y = image_from_level(xy[:, 1] + tile.top, level.height, height, resize)
        return torch.stack([x, y], dim=1)

    def _to_features(
        self, candidates: Candidates, image_size: tuple[int, int]
    ) -> LocalFeatures:
        index = best_first(candidates.scores, candidates.order, self.settings.top_k)
        ranked = candidates.take(index)
        return LocalFeatures(
            keypoints=ranked.xy.float().cpu().numpy(),
            scales=(PATCH_DIAMETER / ranked.scales.double()).float().cpu().numpy(),
            scores=ranked.scores.cpu().numpy(),
            descriptors=ranked.descriptors.cpu().numpy(),
            image_size=image_size,
        )
