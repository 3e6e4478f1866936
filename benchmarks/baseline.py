"""The published implementation, as a plain baseline for the speed benchmark.

Eager float32, batch norm not folded, contiguous layout, descriptors normalised densely,
one image at a time, decoding and writing in line.

    python benchmarks/baseline.py --kapture-root DIR --model PATH
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.models.network import DenseNetwork

Array = npt.NDArray[np.float32]

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def main() -> None:
    """Extract a kapture dataset with the defaults of the published extractor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kapture-root", type=Path, required=True)
    parser.add_argument("--model", required=True)
    options = parser.parse_args()
    network = load_checkpoint(options.model).network
    if not isinstance(network, DenseNetwork):
        parser.error(f"--model {options.model}: expected a checkpoint of R2D2")
    dataset = open_dataset(options.kapture_root)
    output = options.kapture_root / "reconstruction" / "baseline"
    for name in dataset.image_names:
        image = Image.open(dataset.image_path(name)).convert("RGB")
        keypoints, descriptors = extract(network, to_tensor(image))
        target = output / name
        target.parent.mkdir(parents=True, exist_ok=True)
        keypoints.tofile(f"{target}.kpt")
        descriptors.tofile(f"{target}.desc")


def to_tensor(image: Image.Image) -> Tensor:
    """(1, 3, H, W) float32, normalised."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)
    normalized = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[
        :, None, None
    ]
    return normalized[None].contiguous()


@torch.inference_mode()
def extract(
    network: DenseNetwork,
    image: Tensor,
    scale_f: float = 2**0.25,
    min_size: int = 256,
    max_size: int = 1024,
    top_k: int = 5000,
    threshold: float = 0.7,
) -> tuple[Array, Array]:
    """Run the network on every level and keep the best keypoints."""
    height, width = image.shape[2:]
    scale, found = 1.0, []
    while scale + 0.001 >= min_size / max(height, width):
        if scale - 0.001 <= min(1.0, max_size / max(height, width)):
            maps = network(image)
            neighbourhood = F.max_pool2d(maps.repeatability, 3, stride=1, padding=1)
            mask = maps.repeatability == neighbourhood
            mask &= maps.repeatability >= threshold
            mask &= maps.reliability >= threshold
            _, _, y, x = mask.nonzero().t()
            level_height, level_width = image.shape[2:]
            keypoints = torch.stack(
                [
                    x * width / level_width,
                    y * height / level_height,
                    torch.full_like(x, 1) * 32 / scale,
                ],
                dim=1,
            )
            scores = (maps.reliability * maps.repeatability)[0, 0, y, x]
            found.append((keypoints, maps.descriptors[0, :, y, x].t(), scores))
        scale /= scale_f
        image = F.interpolate(
            image,
            (round(height * scale), round(width * scale)),
            mode="bilinear",
            align_corners=False,
        )
    keypoints, descriptors, scores = (torch.cat(part) for part in zip(*found))
    best = scores.argsort(descending=True)[:top_k]
    return keypoints[best].float().numpy(), descriptors[best].contiguous().numpy()


if __name__ == "__main__":
    main()
