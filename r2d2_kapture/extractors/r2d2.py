"""Multi-scale extraction of R2D2 and Fast-R2D2 features.

Revaud et al., "R2D2: Repeatable and Reliable Detector and Descriptor", NeurIPS 2019,
section 4.1: the network runs on every level of a pyramid; keypoints are the 3x3 maxima
of repeatability above both thresholds; their score is reliability x repeatability.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from r2d2_kapture.config.extract import (
    ExtractConfig,
    PyramidConfig,
    SelectionConfig,
)
from r2d2_kapture.coordinates import image_from_level
from r2d2_kapture.core.allocator import HEAP_LIMIT_BYTES, trim_heap
from r2d2_kapture.core.engine import Engine, FeatureMaps, Runtime, Tile
from r2d2_kapture.core.pyramid import (
    Level,
    iterate_levels,
    normalize_rgb,
    plan_levels,
)
from r2d2_kapture.core.selection import (
    Candidates,
    best_first,
    concatenate,
    gather_descriptors,
    local_maxima,
    no_candidates,
    sample_descriptors,
    subpixel_offsets,
)
from r2d2_kapture.extractors.upload import Upload, Uploader
from r2d2_kapture.models.network import DenseNetwork
from r2d2_kapture.types import PATCH_DIAMETER, R2D2_FILES, LocalFeatures

MAXIMUM_MARGIN = 2
"""Pixels around a keypoint that its 3x3 maximum, fit and descriptor can read."""


class R2D2Extractor:
    """Turns images into LocalFeatures with one network and one set of settings.

    Args:
        network: R2D2 or Fast-R2D2, in evaluation mode.
        pyramid: which scales are searched.
        selection: which pixels become keypoints.
        runtime: device, precision, tile size.
    """

    name = "r2d2"
    file_style = R2D2_FILES

    def __init__(
        self,
        network: DenseNetwork,
        pyramid: PyramidConfig,
        selection: SelectionConfig,
        runtime: Runtime,
    ) -> None:
        self.engine = Engine(network, runtime)
        self.pyramid = pyramid
        self.selection = selection
        self.runtime = runtime
        self._uploader = Uploader(runtime.device)

    @classmethod
    def from_config(
        cls, network: DenseNetwork, config: ExtractConfig, runtime: Runtime
    ) -> R2D2Extractor:
        """Take the settings of this extractor out of those of all."""
        return cls(network, config.pyramid, config.selection, runtime)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the features, besides weights and precision."""
        return {
            **dataclasses.asdict(self.pyramid),
            **dataclasses.asdict(self.selection),
        }

    def __call__(self, image: npt.NDArray[np.uint8]) -> LocalFeatures:
        """Extract one image: (H, W, 3) uint8 RGB, pixels as stored."""
        return self.extract_batch([image])[0]

    def extract_batch(
        self, images: Sequence[npt.NDArray[np.uint8]]
    ) -> list[LocalFeatures]:
        """Extract images of equal size: (H, W, 3) uint8 RGB each."""
        return self.extract_uploaded(self.upload(images))

    def upload(self, images: Sequence[npt.NDArray[np.uint8]]) -> Upload:
        """Bring images of equal size, (H, W, 3) uint8 RGB each, to the device.

        On a GPU the copy runs beside the passes of the batch before.
        """
        return self._uploader(images)

    @torch.inference_mode()
    def extract_uploaded(self, upload: Upload) -> list[LocalFeatures]:
        """Extract the images of an upload, which share every pass of the network."""
        count, height, width, _ = upload.pixels.shape
        levels = plan_levels(height, width, self.pyramid)
        pixels = normalize_rgb(upload.wait())
        dim, device = self.engine.descriptor_dim, self.runtime.device
        best = [no_candidates(dim, device) for _ in range(count)]
        pyramid = iterate_levels(pixels, levels, self.pyramid.coordinates)
        for rank, (level, level_pixels) in enumerate(pyramid):
            for tile in self._tiles(level, MAXIMUM_MARGIN):
                window = level_pixels[
                    :, :, tile.top : tile.bottom, tile.left : tile.right
                ]
                maps = self.engine(window)
                for i, previous in enumerate(best):
                    best[i] = self._merge(
                        previous, maps, i, tile, level, rank, (height, width)
                    )
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
        levels = plan_levels(height, width, self.pyramid)
        pixels = normalize_rgb(self.upload([image]).wait())
        level, level_pixels = next(
            iterate_levels(pixels, levels, self.pyramid.coordinates)
        )
        stitched = torch.zeros(2, level.height, level.width)
        for tile in self._tiles(level, margin=0):
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

    def _tiles(self, level: Level, margin: int) -> Iterator[Tile]:
        """The tiles of a level; none where it is too small to have an output."""
        if min(level.height, level.width) < self.engine.backbone.pixel_stride:
            return iter(())
        return self.engine.backbone.tiles(level.height, level.width, margin)

    def _merge(
        self,
        best: Candidates,
        maps: FeatureMaps,
        index: int,
        tile: Tile,
        level: Level,
        rank: int,
        image_shape: tuple[int, int],
    ) -> Candidates:
        """Add the keypoints of one tile and keep the best, described."""
        settings = self.selection
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
        scores = reliability[rows, columns] * repeatability[rows, columns]
        order = ((rank << 24) + rows + tile.top << 24) + columns + tile.left
        kept = best_first(
            torch.cat([best.scores, scores]),
            torch.cat([best.order, order]),
            settings.top_k,
        )
        new = kept[kept >= len(best)] - len(best)
        if not len(new):
            return best
        rows, columns = rows[new], columns[new]
        x, y = columns.float(), rows.float()
        if settings.subpixel:
            offsets = subpixel_offsets(repeatability, rows, columns)
            x, y = x + offsets[:, 0], y + offsets[:, 1]
            descriptors = sample_descriptors(maps.features[index], x, y)
        else:
            descriptors = gather_descriptors(maps.features[index], rows, columns)
        resize = self.pyramid.coordinates
        found = Candidates(
            xy=torch.stack(
                [
                    image_from_level(
                        x + tile.left, level.width, image_shape[1], resize
                    ),
                    image_from_level(
                        y + tile.top, level.height, image_shape[0], resize
                    ),
                ],
                dim=1,
            ),
            scales=torch.full_like(x, level.scale),
            scores=scores[new],
            descriptors=descriptors,
            order=order[new],
        )
        survivors = best.take(torch.sort(kept[kept < len(best)]).values)
        return concatenate([survivors, found])

    def _to_features(
        self, candidates: Candidates, image_size: tuple[int, int]
    ) -> LocalFeatures:
        index = best_first(candidates.scores, candidates.order, self.selection.top_k)
        ranked = candidates.take(index)
        return LocalFeatures(
            keypoints=ranked.xy.float().cpu().numpy(),
            scales=(PATCH_DIAMETER / ranked.scales.double()).float().cpu().numpy(),
            scores=ranked.scores.cpu().numpy(),
            descriptors=ranked.descriptors.cpu().numpy(),
            image_size=image_size,
        )
