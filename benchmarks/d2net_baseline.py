"""A straightforward D2-Net, as a plain baseline for the speed benchmark.

Eager float32 in contiguous layout, the whole image in one pass, first and second
derivatives of all channels as dense maps, one image at a time, decoding and writing in
line. Written from the paper (Dusmanu et al., CVPR 2019, sections 3.1 and 4.3).

    python benchmarks/d2net_baseline.py --images LIST --model PATH --output-dir DIR
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.models.network import FeatureNetwork

Array = npt.NDArray[np.float32]

CAFFE_MEAN = (103.939, 116.779, 123.68)
EDGE_LIMIT = (5 + 1) ** 2 / 5

ROW_SECOND = ((0.0, 1.0, 0.0), (0.0, -2.0, 0.0), (0.0, 1.0, 0.0))
COLUMN_SECOND = ((0.0, 0.0, 0.0), (1.0, -2.0, 1.0), (0.0, 0.0, 0.0))
CROSS_SECOND = ((0.25, 0.0, -0.25), (0.0, 0.0, 0.0), (-0.25, 0.0, 0.25))
ROW_FIRST = ((0.0, -0.5, 0.0), (0.0, 0.0, 0.0), (0.0, 0.5, 0.0))
COLUMN_FIRST = ((0.0, 0.0, 0.0), (-0.5, 0.0, 0.5), (0.0, 0.0, 0.0))


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Hard detections of a feature map (D, h, w), and where they are refined to.

    Attributes:
        mask: (D, h, w) bool.
        steps: (2, D, h, w), rows and columns.
    """

    mask: Tensor
    steps: Tensor


def main() -> None:
    """Extract the images of a list into NumPy archives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--multiscale", action="store_true")
    options = parser.parse_args()
    network = load_checkpoint(options.model).network
    scales = (0.5, 1.0, 2.0) if options.multiscale else (1.0,)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    for name in options.images.read_text(encoding="utf-8").split("\n"):
        if not name:
            continue
        pixels = np.asarray(Image.open(name).convert("RGB"), dtype=np.float32)
        keypoints, scores, descriptors = extract(network, caffe_input(pixels), scales)
        with (options.output_dir / f"{Path(name).name}.d2-net").open("wb") as file:
            np.savez(file, keypoints=keypoints, scores=scores, descriptors=descriptors)


def caffe_input(pixels: Array) -> Tensor:
    """(1, 3, H, W) float32 BGR about 0 from (H, W, 3) RGB."""
    centred = pixels[:, :, ::-1] - np.array(CAFFE_MEAN, dtype=np.float32)
    return torch.from_numpy(np.ascontiguousarray(centred.transpose(2, 0, 1)))[None]


@torch.inference_mode()
def extract(
    network: FeatureNetwork, image: Tensor, scales: tuple[float, ...]
) -> tuple[Array, Array, Array]:
    """Keypoints (N, 3) as x, y, 1 / scale; scores (N,); descriptors (N, D)."""
    height, width = image.shape[2:]
    below = banned = None
    found = []
    for count, scale in enumerate(scales, 1):
        level = F.interpolate(
            image, scale_factor=scale, mode="bilinear", align_corners=True
        )
        features = network(level)
        size = features.shape[2:]
        if below is not None:
            features += F.interpolate(below, size, mode="bilinear", align_corners=True)
        below = features
        detections = detect(features[0])
        seen = detections.mask.any(dim=0)
        if banned is not None:
            before = F.interpolate(banned[None, None].float(), size)[0, 0] > 0
            detections.mask.logical_and_(~before)
            seen = detections.mask.any(dim=0) | before
        banned = seen
        cells, scores, descriptors = describe(features[0], detections)
        ratios = height / level.shape[2], width / level.shape[3]
        y, x = (((cells[i] * 2 + 0.5) * 2 + 0.5) * ratios[i] for i in range(2))
        keypoints = torch.stack([x, y, torch.full_like(x, 1 / scale)], dim=1)
        found.append((keypoints, scores / count, descriptors))
    keypoints, scores, descriptors = (torch.cat(part) for part in zip(*found))
    return keypoints.numpy(), scores.numpy(), descriptors.numpy()


def detect(features: Tensor) -> Detections:
    """Maxima over channels and over 3x3 cells that are no edges, densely."""
    dii, djj, dij, di, dj = (
        filtered(features, kernel)
        for kernel in (ROW_SECOND, COLUMN_SECOND, CROSS_SECOND, ROW_FIRST, COLUMN_FIRST)
    )
    determinant = dii * djj - dij * dij
    trace = dii + djj
    mask = features == features.max(dim=0).values
    mask &= features == F.max_pool2d(features[None], 3, stride=1, padding=1)[0]
    mask &= (determinant > 0) & (trace * trace / determinant <= EDGE_LIMIT)
    steps = torch.stack([dij * dj - djj * di, dij * di - dii * dj]) / determinant
    return Detections(mask=mask, steps=steps)


def filtered(features: Tensor, kernel: tuple[tuple[float, ...], ...]) -> Tensor:
    """Every channel of (D, h, w) correlated with a 3x3 kernel, 0 outside."""
    weight = torch.tensor(kernel, dtype=features.dtype)[None, None]
    return F.conv2d(features[:, None], weight, padding=1)[:, 0]


def describe(features: Tensor, detections: Detections) -> tuple[Tensor, Tensor, Tensor]:
    """Refined cells (2, N), values (N,) and descriptors (N, D) of detections."""
    channels, rows, columns = torch.nonzero(detections.mask, as_tuple=True)
    steps = detections.steps[:, channels, rows, columns]
    cells = torch.stack([rows, columns]) + steps
    last = torch.tensor(features.shape[1:])[:, None] - 1
    kept = (steps.abs() < 0.5).all(dim=0)
    kept &= (cells.floor() >= 0).all(dim=0) & (cells.ceil() <= last).all(dim=0)
    cells, values = cells[:, kept], features[channels, rows, columns][kept]
    (top, left), (bottom, right) = cells.floor().long(), cells.ceil().long()
    down, along = cells - cells.floor()
    descriptors = (
        features[:, top, left] * (1 - down) * (1 - along)
        + features[:, top, right] * (1 - down) * along
        + features[:, bottom, left] * down * (1 - along)
        + features[:, bottom, right] * down * along
    )
    return cells, values, F.normalize(descriptors.t(), dim=1)


if __name__ == "__main__":
    main()
