"""Sequences with known homographies, from photographs that nothing was trained on.

    python benchmarks/validation_set.py --images photos --output validation
    kapture_r2d2_hpatches --root validation --output figures

Each photograph becomes a sequence ``v_...`` in the layout of HPatches: image 1 is the
photograph, the others show it as a plane before a pinhole camera that has turned,
tilted, rolled and come nearer, lit by a smooth random field and a lamp of another
colour, blurred by a moving hand, with the noise of photons. Training moves the four
corners or draws scale, rotation and tilt apart, so these are pairs of another kind.
The same seed gives the same files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from r2d2_kapture.io.images.formats import SUFFIXES

Array = npt.NDArray[np.float64]

OVERSAMPLING = 2
"""Samples of a pixel along each axis, so that what is far away does not alias."""


def main() -> None:
    """Write one sequence a photograph."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--views", type=int, default=2, help="images beside the first")
    parser.add_argument("--max-edge", type=int, default=640, help="pixels")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = sorted(p for p in options.images.rglob("*") if p.suffix.lower() in SUFFIXES)
    for index, path in enumerate(found):
        rng = np.random.default_rng([options.seed, index])
        write_sequence(
            path,
            options.output / f"v_{index:03}_{path.stem}",
            rng,
            views=options.views,
            max_edge=options.max_edge,
        )
    print(f"{len(found)} sequences in {options.output}")


def write_sequence(
    path: Path, folder: Path, rng: np.random.Generator, *, views: int, max_edge: int
) -> None:
    """Write a photograph and its views, from near to far in viewpoint and light."""
    with Image.open(path) as opened:
        photograph = opened.convert("RGB")
    photograph.thumbnail((max_edge, max_edge), Image.Resampling.LANCZOS)
    folder.mkdir(parents=True)
    photograph.save(folder / "1.jpg", quality=95)
    pixels = np.asarray(photograph, np.float64) / 255
    for view in range(1, views + 1):
        strength = view / views
        homography = camera_homography(rng, photograph.size, strength)
        seen = relight(rng, look(pixels, homography), strength)
        picture = Image.fromarray((seen.clip(0, 1) * 255).round().astype(np.uint8))
        picture.save(folder / f"{view + 1}.jpg", quality=int(rng.integers(60, 95)))
        np.savetxt(folder / f"H_1_{view + 1}", homography)


def camera_homography(
    rng: np.random.Generator, size: tuple[int, int], strength: float
) -> Array:
    """How a camera that has moved sees the plane of a photograph.

    Args:
        rng: source of the motion.
        size: (W, H) in pixels.
        strength: 1 is tilts up to 60 and rolls up to 30 degrees, distances of 0.6 to
            1.6.

    Returns:
        (3, 3) from pixels of the photograph to pixels, (0, 0) at the centre of the
        first one.
    """
    width, height = size
    focal = 1.2 * max(size)
    centre = (width - 1) / 2, (height - 1) / 2
    intrinsics = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])
    tilt = np.deg2rad(60) * strength * rng.uniform(0.4, 1)
    towards = rng.uniform(0, 2 * np.pi)
    roll = np.deg2rad(30) * strength * rng.uniform(-1, 1)
    distance = np.exp(strength * rng.uniform(np.log(0.6), np.log(1.6)))
    rotation = _turn(roll) @ _turn(towards) @ _lean(tilt) @ _turn(-towards)
    # the camera looks at the middle of the plane, at depth 1 before it moved
    plane = np.column_stack([rotation[:, :2], [0, 0, distance]])
    seen = intrinsics @ plane @ np.linalg.inv(intrinsics)
    homography: Array = seen / seen[2, 2]
    return homography


def _turn(angle: float) -> Array:
    """(3, 3) rotation about the optical axis."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _lean(angle: float) -> Array:
    """(3, 3) rotation about the horizontal axis."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def look(pixels: Array, homography: Array) -> Array:
    """The picture (H, W, 3) that the camera takes, black beside the photograph."""
    height, width = pixels.shape[:2]
    steps = (np.arange(OVERSAMPLING) + 0.5) / OVERSAMPLING - 0.5
    rows = (np.arange(height)[:, None] + steps).ravel()
    columns = (np.arange(width)[:, None] + steps).ravel()
    x, y = np.meshgrid(columns, rows)
    points = np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    source = np.linalg.inv(homography) @ points
    # what lies behind the camera is not seen
    source = np.where(source[2] > 0, source[:2] / source[2], -10)
    fine = [
        map_coordinates(channel, source[::-1], order=1, mode="constant")
        for channel in np.moveaxis(pixels, 2, 0)
    ]
    shape = height, OVERSAMPLING, width, OVERSAMPLING
    return np.stack([plane.reshape(shape).mean(axis=(1, 3)) for plane in fine], axis=2)


def relight(rng: np.random.Generator, pixels: Array, strength: float) -> Array:
    """Another light, a moving hand, and the noise of photons."""
    height, width = pixels.shape[:2]
    field = gaussian_filter(rng.normal(size=(height, width)), min(height, width) / 6)
    field *= strength * rng.uniform(0.2, 0.7) / field.std()
    lamp = np.exp(strength * rng.uniform(-0.15, 0.15, 3))
    exposure = np.exp(strength * rng.uniform(-0.7, 0.4))
    lit = (pixels**2.2 * exposure * lamp * np.exp(field)[..., None]).clip(0, 1)
    shake = strength * rng.uniform(0, 0.8, 2)
    lit = gaussian_filter(lit, (*shake, 0))
    photons = rng.uniform(2000, 20000)
    lit = rng.poisson(lit * photons) / photons
    seen: Array = lit ** (1 / 2.2)
    return seen


if __name__ == "__main__":
    main()
