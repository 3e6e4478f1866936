"""Pictures are whole PNG files of the expected size and show what they should."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.errors import OutputError
from r2d2_kapture.pictures.features import (
    draw_heatmaps,
    draw_keypoints,
    draw_overview,
    heat_range,
)
from r2d2_kapture.types import LocalFeatures
from tests.pictures.colours import read


@pytest.fixture
def image():
    return np.full((60, 80, 3), 120, dtype=np.uint8)


def features(count, seed=0, size=(80, 60)):
    rng = np.random.default_rng(seed)
    return LocalFeatures(
        keypoints=rng.uniform(0, size, (count, 2)).astype(np.float32),
        scales=rng.uniform(8, 20, count).astype(np.float32),
        scores=np.sort(rng.uniform(0.5, 1, count))[::-1].astype(np.float32),
        descriptors=np.zeros((count, 128), dtype=np.float32),
        image_size=size,
    )


def colorful_share(picture):
    """Share of the pixels that are not grey."""
    return ((picture.max(axis=2) - picture.min(axis=2)) > 60).mean()


def test_keypoints_are_drawn_and_an_image_without_any(image, tmp_path) -> None:
    path = tmp_path / "new folder" / "keypoints.png"
    draw_keypoints(image, features(50), path, title="a/b.jpg")
    picture = read(path)
    # 12 inches of image, room for colour bar, title and legend, 100 dots an inch
    assert picture.shape == (970, 1280, 3)
    empty = tmp_path / "empty.png"
    draw_keypoints(image, features(0), empty)
    assert colorful_share(picture) > colorful_share(read(empty)) + 0.02
    assert [path.name for path in path.parent.iterdir()] == ["keypoints.png"]
    draw_keypoints(image, features(0), tmp_path / "none.png")
    picture = read(tmp_path / "none.png")
    assert picture.shape == (970, 1280, 3)
    assert picture[470, 580].tolist() == [120, 120, 120]  # as bright as it is


def test_a_circle_is_as_wide_as_the_patch_and_centred_on_its_pixel(image, tmp_path):
    one = LocalFeatures(
        keypoints=np.array([[39.5, 29.5]], dtype=np.float32),
        scales=np.array([20.0], dtype=np.float32),
        scores=np.ones(1, dtype=np.float32),
        descriptors=np.zeros((1, 128), dtype=np.float32),
        image_size=(80, 60),
    )
    draw_keypoints(image, one, tmp_path / "one.png")
    picture = read(tmp_path / "one.png")
    grey = (np.abs(picture - 120) <= 2).all(axis=2)
    columns = np.flatnonzero(grey.mean(axis=0) > 0.4)
    rows = np.flatnonzero(grey.mean(axis=1) > 0.4)
    image_width = columns[-1] - columns[0] + 1
    circle = np.ptp(picture, axis=2)[:, : columns[-1]] > 60
    y, x = np.nonzero(circle)
    assert np.ptp(x) == pytest.approx(image_width * 20 / 80, abs=3)
    assert np.ptp(y) == pytest.approx(np.ptp(x), abs=3)
    assert x.min() + x.max() == pytest.approx(columns[0] + columns[-1], abs=3)
    assert y.min() + y.max() == pytest.approx(rows[0] + rows[-1], abs=3)


def test_only_the_best_are_drawn(image, tmp_path):
    for limit in (5, 500):
        draw_keypoints(
            image, features(500), tmp_path / f"{limit}.png", max_keypoints=limit
        )
    few, all_ = (colorful_share(read(tmp_path / f"{n}.png")) for n in (5, 500))
    assert few < all_ / 1.5


@pytest.mark.parametrize("count", [1, 7])
def test_equal_scores_and_single_keypoints(image, tmp_path, count):
    equal = features(count)
    equal.scores[:] = 0.5
    draw_keypoints(image, equal, tmp_path / "equal.png")
    assert read(tmp_path / "equal.png").shape == (970, 1280, 3)


@pytest.mark.parametrize("size", [(1, 1), (400, 2), (3, 300)])
def test_tiny_and_narrow_images(tmp_path, size):
    width, height = size
    image = np.zeros((height, width, 3), dtype=np.uint8)
    draw_keypoints(image, features(0, size=size), tmp_path / "tiny.png")
    draw_heatmaps(
        image, {"map": np.zeros((height, width), np.float32)}, tmp_path / "m.png"
    )
    assert read(tmp_path / "tiny.png").size and read(tmp_path / "m.png").size


def test_heatmaps_stand_next_to_the_image(image, tmp_path):
    ramp = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (30, 1))
    maps = {"repeatability": ramp, "reliability": 1 - ramp}
    draw_heatmaps(image, maps, tmp_path / "maps.png")
    picture = read(tmp_path / "maps.png")
    assert picture.shape == (485, 2040, 3)
    assert colorful_share(picture[:, :600]) < 0.01
    assert colorful_share(picture[:, 680:]) > 0.5


def test_colours_of_a_heat_map_span_what_is_there(image, tmp_path):
    ramp = np.linspace(0, 1, 1200, dtype=np.float32).reshape(30, 40)
    narrow = 0.4 + 0.01 * ramp
    narrow[0, 0], narrow[-1, -1] = -5, 5
    for name, heat in (("wide", ramp), ("narrow", narrow)):
        draw_heatmaps(image, {"map": heat}, tmp_path / f"{name}.png")
    panels = [
        read(tmp_path / f"{name}.png")[60:420, 680:1180] for name in ("wide", "narrow")
    ]
    assert np.abs(panels[0] - panels[1]).mean() < 3
    low, high = heat_range(narrow)
    assert low == pytest.approx(0.4001, abs=1e-4)
    assert high == pytest.approx(0.4099, abs=1e-4)
    one = np.zeros((30, 40), np.float32)
    one[3, 4] = 1
    assert heat_range(one) == (0, 1)  # not one colour for all


def test_overview_holds_every_panel(image, tmp_path):
    panels = [(f"{n}.jpg", image, features(20 * n, seed=n)) for n in range(6)]
    draw_overview(panels, tmp_path / "overview.png")
    picture = read(tmp_path / "overview.png")
    assert picture.shape == (705, 1680, 3)
    assert (np.abs(picture - 120) <= 2).all(axis=2).mean() > 0.3


def test_other_formats_by_suffix(image, tmp_path):
    draw_keypoints(image, features(5), tmp_path / "picture.jpg")
    assert Image.open(tmp_path / "picture.jpg").format == "JPEG"


def test_a_place_that_cannot_be_written_is_one_line(image, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        draw_keypoints(image, features(3), tmp_path / "file" / "picture.png")


def test_pyplot_is_not_touched(image, tmp_path):
    before = "matplotlib.pyplot" in sys.modules
    draw_keypoints(image, features(3), tmp_path / "picture.png")
    assert ("matplotlib.pyplot" in sys.modules) == before
