"""Pictures of matches and of a warped image show what they should."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from r2d2_kapture.pictures.matches import draw_matches
from r2d2_kapture.pictures.overlay import draw_overlay, warp
from r2d2_kapture.pictures.two_images import arranged
from tests.pictures.colours import drawn, share_of


def draw(inliers: list[bool] | None, count: int = 10) -> Figure:
    grey = np.full((60, 80, 3), 120, np.uint8)
    points = np.column_stack([np.full(count, 5), np.linspace(5, 35, count)])
    given = None if inliers is None else np.array(inliers, bool)
    return draw_matches(grey, grey[:40, :50], points, points, given, title="a_$b$")


def test_inliers_are_green_outliers_red_and_all_is_counted() -> None:
    green, red = drawn(draw([True] * 10)), drawn(draw([False] * 10))
    assert share_of(green, 1) > 0.005 and share_of(green, 0) == 0
    assert share_of(red, 0, 25) > 0.002 and share_of(red, 1, 25) == 0
    assert share_of(red, 0) < share_of(green, 1) / 10, "faint"
    assert draw([True] * 4 + [False] * 6).axes[0].get_title() == (
        "a_$b$: 4 of 10 matches are inliers"
    )
    figure = draw(None)
    assert share_of(drawn(figure), 1) > 0.005
    assert figure.axes[0].get_title() == "a_$b$: 10 matches"
    picture = drawn(draw([], 0))
    assert share_of(picture, 0) == share_of(picture, 1) == 0


def test_of_many_matches_some_have_lines_and_the_title_says_so() -> None:
    (axes,) = draw([True] * 3000 + [False] * 2000, 5000).axes
    lines = [c for c in axes.collections if isinstance(c, LineCollection)]
    assert [len(c.get_segments()) for c in lines] == [100, 200]
    assert axes.get_title().endswith(
        "3000 of 5000 matches are inliers, 300 lines drawn"
    )


@pytest.mark.parametrize(
    "sizes, axis",
    [
        (((400, 300), (400, 300)), 0),
        (((300, 400), (600, 800)), 0),
        (((1600, 400), (1200, 300)), 1),
    ],
)
def test_two_images_share_a_height_or_a_width(
    sizes: tuple[tuple[int, int], tuple[int, int]], axis: int
) -> None:
    places, whole = arranged(sizes)
    shared = [place.scale * size[1 - axis] for place, size in zip(places, sizes)]
    assert shared == pytest.approx([whole[1 - axis]] * 2)
    assert places[1].corner[axis] > places[0].scale * sizes[0][axis]
    far = np.array([sizes[1]]) - 0.5  # the corner where the last pixel ends
    assert places[1].of(far)[0] == pytest.approx(whole)


def test_lines_end_at_the_pixels_that_they_join() -> None:
    image1, image2 = np.zeros((40, 40, 3), np.uint8), np.zeros((80, 60, 3), np.uint8)
    image1[10, 30] = image2[70, 5] = 255
    figure = draw_matches(
        image1, image2, np.array([[30, 10]]), np.array([[5, 70]]), np.array([True])
    )
    (axes,) = figure.axes
    bare = draw_matches(image1, image2, np.zeros((0, 2)), np.zeros((0, 2)), None)
    pixels = drawn(bare)
    for x, y in axes.collections[3].get_segments()[0]:  # type: ignore[attr-defined]
        figure.canvas.draw()
        column, row = axes.transData.transform((x, y))
        assert pixels[round(len(pixels) - row), round(column)].min() > 100


def test_a_warp_by_whole_pixels_moves_them() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (30, 40, 3), np.uint8)
    shift = np.array([[1, 0, 7], [0, 1, -4], [0, 0, 1]], float)
    warped, covered = warp(image, -3 * shift, (30, 40))
    assert covered.sum() == 26 * 33
    off = warped[:26, 7:].astype(int) - image[4:, :33]
    assert abs(off).max() <= 1, "as Pillow rounds"


def test_a_warp_stops_at_the_horizon() -> None:
    tilted = np.array([[1, 0, 0], [0, 1, 0], [0, 0.02, 1]])
    _, covered = warp(np.full((100, 50, 3), 255, np.uint8), tilted, (100, 200))
    assert covered[:30, :20].all() and not covered[60:].any()


def test_the_overlay_of_an_image_on_itself_is_that_image() -> None:
    rng = np.random.default_rng(0)
    image = np.repeat(rng.integers(0, 256, (60, 80, 1), np.uint8), 3, axis=2)
    same, moved = (
        drawn(draw_overlay(image, image, np.array([[1, 0, x], [0, 1, 0], [0, 0, 1.0]])))
        for x in (0, 9)
    )
    assert share_of(same, 0) == share_of(same, 2) == 0
    assert share_of(moved, 0) > 0.05


def test_the_overlay_of_a_darker_image_is_grey_too() -> None:
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.integers(0, 256, (60, 80, 1), np.uint8), 3, axis=2)
    picture = drawn(draw_overlay(grey // 3, grey, np.eye(3)))
    # the checkerboard, on the left, has the brightness of both
    assert share_of(picture[:, picture.shape[1] // 2 :], 0, 15) == 0
