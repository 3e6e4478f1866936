"""R2D2 on a GPU: all levels of a batch as one graph of kernels.

An image of 1024 pixels takes some 1900 kernels, and to launch them takes longer than to
run them. Here their number and shapes depend on the size of the images alone: of every
level the best ``top_k`` places are described, whether above the thresholds or not, and
what is not is dropped at the end. So a batch shares all kernels, and from its second
batch on a size is replayed as one CUDA graph.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from r2d2_kapture.config.extract import R2D2Config
from r2d2_kapture.coordinates import image_from_level
from r2d2_kapture.core.engine import Engine, FeatureMaps
from r2d2_kapture.core.pyramid import (
    Level,
    iterate_levels,
    normalize_rgb,
    plan_levels,
)
from r2d2_kapture.core.selection import (
    maxima_mask,
    sample_descriptors,
    subpixel_offsets,
)
from r2d2_kapture.core.streaming import is_out_of_memory
from r2d2_kapture.core.upload import Upload
from r2d2_kapture.types import PATCH_DIAMETER, LocalFeatures

MOST_GRAPHS = 8
"""Sizes of batches whose graphs are kept; they share one memory."""
LAST = (1 << 32) - 1
Size = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Places:
    """As many places of each image of a batch, some of them no keypoints.

    Attributes:
        keys: (B, N) int64, the bits of the score above how far the place is from the
            last of the pyramid; -1 for no keypoint.
        xy: (B, N, 2) float32 in pixels of the image.
        sides: (B, N) float32 of patches in pixels.
        descriptors: (B, N, D) float32, unit L2 norm.
    """

    keys: Tensor
    xy: Tensor
    sides: Tensor
    descriptors: Tensor


@dataclass(frozen=True, kw_only=True)
class Captured:
    """A graph, where it reads the (B, 3, H, W) images, and what it writes."""

    graph: torch.cuda.CUDAGraph
    images: Tensor
    found: Places


class WholeLevels:
    """Extracts batches whose levels need no tiles.

    Args:
        engine: on a GPU.
        settings: with a ``top_k``.
    """

    def __init__(self, engine: Engine, settings: R2D2Config) -> None:
        self._engine = engine
        self._settings = settings
        self._graphs: OrderedDict[Size, Captured] = OrderedDict()
        self._seen: set[Size] = set()
        self._pool: Any = None
        self._stream: Any = None
        self._captures = engine.backbone.runtime.device.type == "cuda"
        # a graph has one input and one output
        self._lock = Lock()

    def takes(self, upload: Upload) -> bool:
        """Whether these images have levels, none of which is cut, and no masks."""
        levels = self._levels(*upload.pixels.shape[1:3])
        masked = any(keep is not None for keep in upload.keep)
        return bool(levels) and not masked and all(map(self._is_one_tile, levels))

    def _is_one_tile(self, level: Level) -> bool:
        return sum(1 for _ in self._engine.tiles(level.height, level.width, 0)) == 1

    @torch.inference_mode()
    def __call__(self, upload: Upload) -> list[LocalFeatures]:
        """Extract the images of an upload that it takes."""
        with self._lock:
            found = self._find_or_release(normalize_rgb(upload.wait()))
            return _to_features(found, upload.image_size)

    def _levels(self, height: int, width: int) -> list[Level]:
        """Those that have an output."""
        stride = self._engine.backbone.pixel_stride
        return [
            level
            for level in plan_levels(height, width, self._settings)
            if level.searched and min(level.height, level.width) >= stride
        ]

    def _find_or_release(self, images: Tensor) -> Places:
        """As _find; where memory does not suffice, without that of graphs."""
        try:
            return self._find(images)
        except RuntimeError as error:
            if not (self._graphs and is_out_of_memory(error)):
                raise
            self._graphs.clear()
            self._seen.clear()
            self._pool = None
        return self.places(images)

    def _find(self, images: Tensor) -> Places:
        """By a graph from the second time on: to make one takes longer than a batch."""
        size = tuple(images.shape)
        if size not in self._graphs:
            if not self._captures or size not in self._seen:
                self._seen.add(size)
                return self.places(images)
            try:
                self._capture(images)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                self._captures = False
                return self.places(images)
        captured = self._graphs[size]
        self._graphs.move_to_end(size)
        captured.images.copy_(images)
        captured.graph.replay()
        return captured.found

    def _capture(self, images: Tensor) -> None:
        if len(self._graphs) == MOST_GRAPHS:
            self._graphs.popitem(last=False)
        graph, static = torch.cuda.CUDAGraph(), images.clone()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
            self._stream = torch.cuda.Stream(  # type: ignore[no-untyped-call]
                images.device
            )
        # on the device of the images: what runs on another one is not in the graph
        with (
            torch.cuda.device(images.device),
            torch.cuda.graph(
                graph,
                pool=self._pool,
                stream=self._stream,
                capture_error_mode="thread_local",
            ),
        ):
            found = self.places(static)
        self._graphs[tuple(images.shape)] = Captured(
            graph=graph, images=static, found=found
        )

    def places(self, images: Tensor) -> Places:
        """The best places of (B, 3, H, W) normalised images, best first."""
        height, width = images.shape[2:]
        wanted = set(self._levels(height, width))
        pyramid = iterate_levels(
            images,
            plan_levels(height, width, self._settings),
            self._settings.coordinates,
        )
        parts = []
        above = 0
        for level, pixels in pyramid:
            if level in wanted:
                maps = self._engine(pixels)
                parts.append(self._of_level(maps, level, above, (width, height)))
                above += maps.reliability[0].numel()
                del maps
        keys = torch.cat([part.keys for part in parts], dim=1)
        keys, index = keys.topk(min(self._settings.top_k, keys.shape[1]), dim=1)

        def best(name: str) -> Tensor:
            values = torch.cat([getattr(part, name) for part in parts], dim=1)
            images_of = torch.arange(len(keys), device=keys.device)[:, None]
            return values[images_of, index]

        return Places(
            keys=keys,
            xy=best("xy"),
            sides=best("sides"),
            descriptors=best("descriptors"),
        )

    def _of_level(
        self,
        maps: FeatureMaps,
        level: Level,
        above: int,
        image_size: tuple[int, int],
    ) -> Places:
        """The best places of a level, in any order; ``above`` are on those before."""
        settings = self._settings
        count, _, width = maps.reliability.shape
        keys = self._keys(maps, above)
        keys = keys.topk(min(settings.top_k, keys.shape[1]), dim=1, sorted=False).values
        place = (LAST - above - (keys & LAST)).clamp_(min=0)
        rows, columns = place // width, place % width
        xy = torch.stack([columns, rows], dim=2).float()
        if settings.subpixel:
            xy = xy + subpixel_offsets(maps.repeatability, rows, columns)
        scales = torch.full_like(xy[..., 0], level.scale)
        sides = zip(xy.unbind(2), (level.width, level.height), image_size)
        return Places(
            keys=keys,
            xy=torch.stack(
                [image_from_level(*side, settings.coordinates) for side in sides], dim=2
            ),
            sides=(PATCH_DIAMETER / scales.double()).float(),
            descriptors=sample_descriptors(
                maps.features, xy[..., 0], xy[..., 1], maps.doubled
            ),
        )

    def _keys(self, maps: FeatureMaps, above: int) -> Tensor:
        """(B, H * W) int64: see Places. No two are equal, so their order is one."""
        mask = maxima_mask(
            maps.reliability,
            maps.repeatability,
            reliability_thr=self._settings.reliability_thr,
            repeatability_thr=self._settings.repeatability_thr,
        )
        scores = maps.reliability * maps.repeatability
        bits = scores.view(torch.int32).flatten(1).long() << 32
        last = LAST - above
        order = torch.arange(last, last - bits.shape[1], -1, device=bits.device)
        return torch.where(mask.flatten(1), bits | order, -1)


def _to_features(found: Places, image_size: tuple[int, int]) -> list[LocalFeatures]:
    """Copy what are keypoints to the processor, image by image."""
    on_gpu = found.keys.is_cuda
    copies = {
        name: torch.empty_like(value, device="cpu", pin_memory=on_gpu).copy_(
            value, non_blocking=True
        )
        for name, value in vars(found).items()
    }
    if on_gpu:
        torch.cuda.current_stream(found.keys.device).synchronize()
    keys, xy, sides, descriptors = (value.numpy() for value in copies.values())
    scores = (keys >> 32).astype("int32").view("float32")
    counts = (keys >= 0).sum(1)
    return [
        LocalFeatures(
            keypoints=xy[i, :count].copy(),
            scales=sides[i, :count].copy(),
            scores=scores[i, :count].copy(),
            descriptors=descriptors[i, :count].copy(),
            image_size=image_size,
        )
        for i, count in enumerate(counts)
    ]
