"""Held-out photographs stay the same; pairs have the homography that they claim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.training.validation import (
    MAX_HELD_OUT,
    SIDE,
    hold_out,
    homography_pair,
)
from tests.scenes.images import textured_image

ROOT = Path("/photos")


def photographs(count: int) -> list[Path]:
    return [ROOT / f"été {i % 7}" / f"{i}, x.jpg" for i in range(count)]


@pytest.mark.parametrize(
    ("count", "least", "most"), [(2, 1, 1), (10, 1, 3), (200, 4, 16), (900, 16, 16)]
)
def test_about_one_in_twenty_is_held_out(count: int, least: int, most: int) -> None:
    paths = photographs(count)
    trained, held_out = hold_out(paths, ROOT)
    assert least <= len(held_out) <= most <= MAX_HELD_OUT
    assert sorted([*trained, *held_out]) == sorted(paths)
    assert list(trained) == [path for path in paths if path in set(trained)]


def test_a_single_photograph_does_both() -> None:
    paths = photographs(1)
    assert hold_out(paths, ROOT) == ((paths[0],), (paths[0],))
    assert hold_out([], ROOT) == ((), ())


def test_the_choice_depends_on_names_only() -> None:
    paths = photographs(300)
    _, held_out = hold_out(paths, ROOT)
    assert hold_out(paths[::-1], ROOT)[1] == held_out
    elsewhere = [Path("/moved") / path.relative_to(ROOT) for path in paths]
    _, moved = hold_out(elsewhere, Path("/moved"))
    assert [path.relative_to("/moved") for path in moved] == [
        path.relative_to(ROOT) for path in held_out
    ]
    # photographs that go take no other ones along
    _, fewer = hold_out([path for path in paths if path not in held_out[:2]], ROOT)
    assert set(held_out[2:]) <= set(fewer)


def dots(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A dark image with a grid of soft bright dots, and their (x, y)."""
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width), 20.0)
    centres = np.array(
        [
            (cx + 0.3, cy - 0.2)
            for cy in np.linspace(0.3, 0.7, 4) * height
            for cx in np.linspace(0.3, 0.7, 4) * width
        ]
    )
    for cx, cy in centres:
        image += 200 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 5.0**2))
    pixels = np.repeat(np.clip(image, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    return pixels, centres


def centroids_near(image: np.ndarray, guesses: np.ndarray) -> np.ndarray:
    """Centre of mass of what is bright within 9 pixels of each guess."""
    grey = image.mean(axis=2)
    found = []
    for gx, gy in guesses:
        left, top = int(round(gx)) - 9, int(round(gy)) - 9
        patch = grey[top : top + 19, left : left + 19]
        weight = np.clip(patch - patch.min() - 0.35 * np.ptp(patch), 0, None)
        y, x = np.mgrid[:19, :19]
        found.append(
            (
                left + (weight * x).sum() / weight.sum(),
                top + (weight * y).sum() / weight.sum(),
            )
        )
    return np.array(found)


def mapped(points: np.ndarray, homography: np.ndarray) -> np.ndarray:
    projected = np.column_stack([points, np.ones(len(points))]) @ homography.T
    return projected[:, :2] / projected[:, 2:]


@pytest.mark.parametrize("strength", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("size", [(600, 800), (300, 420)])
def test_dots_are_where_the_homography_puts_them(
    strength: float, size: tuple[int, int]
) -> None:
    pixels, centres = dots(*size)
    pair = homography_pair("dots", pixels, strength, seed=5)
    # image 1 is the picture's middle, at most 480 pixels
    factor = min(1.0, SIDE / min(size))
    height, width = (round(side * factor) for side in size)
    side1 = pair.image1.shape[0]
    assert side1 == min(height, width) and pair.image1.shape == (side1, side1, 3)
    corner = np.array([round((length - side1) / 2) for length in (width, height)])
    scale = np.array([width / size[1], height / size[0]])
    in_1 = centroids_near(pair.image1, (centres + 0.5) * scale - 0.5 - corner)
    assert np.abs(in_1 - ((centres + 0.5) * scale - 0.5 - corner)).max() < 1
    expected = mapped(in_1, pair.H_2_from_1)
    inside = (expected > 15).all(axis=1) & (
        expected < np.array(pair.image2.shape[1::-1]) - 16
    ).all(axis=1)
    assert inside.sum() >= 6
    found = centroids_near(pair.image2, expected[inside])
    assert np.abs(found - expected[inside]).max() < 0.5
    assert np.abs((found - expected[inside]).mean(axis=0)).max() < 0.1


def test_pairs_repeat_and_grow_stronger() -> None:
    pixels = textured_image(400, 500)
    first, again = (homography_pair("x", pixels, 0.7, seed=3) for _ in range(2))
    assert np.array_equal(first.image2, again.image2)
    assert np.array_equal(first.H_2_from_1, again.H_2_from_1)
    mild = homography_pair("x", pixels, 0.0, seed=3)
    strong = homography_pair("x", pixels, 1.0, seed=3)

    def unlikeness(homography: np.ndarray) -> float:
        square = np.array([[100, 100], [200, 100], [200, 200], [100, 200.0]])
        sides = np.linalg.norm(np.diff(mapped(square, homography), axis=0), axis=1)
        return float(sides.max() / sides.min())

    assert unlikeness(mild.H_2_from_1) < 1.05 < unlikeness(strong.H_2_from_1)
