"""Pictures of training pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.errors import OutputError
from r2d2_kapture.pictures.training import (
    draw_training_pair,
    position_colors,
    shortened,
    tiled,
    warped,
)

SIDE = 60


def images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return first, np.roll(first, (-5, -8), axis=(0, 1))


def shift_flow() -> np.ndarray:
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    aflow = np.stack([x - 8, y - 5], axis=-1).astype(np.float32)
    aflow[(x < 8) | (y < 5)] = np.nan
    return aflow


def test_the_second_crop_is_laid_over_the_first_where_it_is_known() -> None:
    first, second = images()
    both = tiled((first, second), shift_flow())
    # a right flow brings back the same pixels, whichever crop they come from
    np.testing.assert_array_equal(both[5:, 8:], first[5:, 8:])
    assert (both[:5] != first[:5]).mean() > 0.9


def test_tiles_alternate_between_the_crops() -> None:
    first = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    second = np.full((SIDE, SIDE, 3), 200, dtype=np.uint8)
    known = tiled((first, second), shift_flow())[5:, 8:]
    assert set(np.unique(known)) == {0, 200}
    assert 0.4 < (known == 200).mean() < 0.6


def test_maps_are_read_between_pixels_and_unknown_elsewhere() -> None:
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    values = (2.0 * x + y).astype(np.float32)
    aflow = shift_flow() + np.float32(0.25)
    found = warped(values, aflow)
    known = np.isfinite(aflow[..., 0])
    expected = 2 * aflow[..., 0] + aflow[..., 1]
    np.testing.assert_allclose(found[known], expected[known], atol=1e-3)
    assert np.isnan(found[~known]).all()


def test_colours_tell_places_apart() -> None:
    x, y = (grid.ravel() for grid in np.meshgrid(*2 * [np.linspace(0.05, 0.95, 9)]))
    colors = position_colors(x, y)
    assert colors.min() >= 0 and colors.max() <= 1
    distances = np.abs(colors[:, None] - colors[None]).max(axis=2)
    assert (distances + np.eye(len(colors))).min() > 0.02


@pytest.mark.parametrize("with_maps", [False, True])
def test_a_picture_is_written(tmp_path: Path, with_maps: bool) -> None:
    path = tmp_path / "new folder" / "pair.png"
    rng = np.random.default_rng(0)
    pair = rng.random((2, SIDE, SIDE), dtype=np.float32)
    maps = {"reliability": (pair[0], pair[1]), "other": (pair[1], pair[0])}
    title = "costs $5 and é"
    draw_training_pair(
        images(), shift_flow(), path, title=title, maps=maps if with_maps else None
    )
    picture = Image.open(path)
    assert (picture.height > picture.width / 1.5) == with_maps
    assert np.asarray(picture).std() > 20


def test_a_pair_of_which_nothing_is_known_is_drawn(tmp_path: Path) -> None:
    nothing = np.full((SIDE, SIDE, 2), np.nan, dtype=np.float32)
    draw_training_pair(images(), nothing, tmp_path / "pair.png")
    assert Image.open(tmp_path / "pair.png").width > 500


def test_long_titles_keep_their_ends() -> None:
    assert shortened("short") == "short"
    title = shortened("pair 7: " + "folder/" * 60 + "photo.jpg")
    assert len(title) < 125
    assert title.startswith("pair 7: ") and title.endswith("photo.jpg")


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError):
        draw_training_pair(images(), shift_flow(), tmp_path / "file" / "pair.png")
