"""Quarter turns: every pixel is where its position says, features are back in place."""

from __future__ import annotations

import numpy as np
import pytest

from r2d2_kapture.config.rotations import TURNS, read_rotations
from r2d2_kapture.coordinates import Turn, stored_from_turned
from r2d2_kapture.core.quarter_turns import in_stored_pixels, turned
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.types import LocalFeatures

WIDTH, HEIGHT = 7, 4


@pytest.mark.parametrize("turn", TURNS)
def test_every_pixel_of_a_turned_image_maps_to_its_own(turn: Turn) -> None:
    stored = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    seen = turned(stored, turn)
    rows, columns = np.mgrid[: seen.shape[0], : seen.shape[1]]
    xy = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float32)
    back = stored_from_turned(xy, turn, (WIDTH, HEIGHT)).astype(int)
    np.testing.assert_array_equal(stored[back[:, 1], back[:, 0]], seen.ravel())


def test_a_turn_is_clockwise() -> None:
    top_left = np.zeros((HEIGHT, WIDTH), np.bool_)
    top_left[0, 0] = True
    corners = [tuple(np.argwhere(turned(top_left, turn))[0]) for turn in TURNS]
    right, bottom = WIDTH - 1, HEIGHT - 1
    assert corners == [(0, 0), (0, bottom), (bottom, right), (right, 0)]


@pytest.mark.parametrize("turn", TURNS)
def test_features_keep_everything_but_their_place(turn: Turn) -> None:
    size = (HEIGHT, WIDTH) if turn in (90, 270) else (WIDTH, HEIGHT)
    rng = np.random.default_rng(0)
    seen = LocalFeatures(
        keypoints=(rng.uniform(0, 1, (9, 2)) * (np.array(size) - 1)).astype("f4"),
        scales=rng.uniform(1, 9, 9).astype("f4"),
        scores=rng.uniform(0, 1, 9).astype("f4"),
        descriptors=rng.uniform(0, 1, (9, 3)).astype("f4"),
        image_size=size,
    )
    stored = in_stored_pixels(seen, turn)
    assert stored.image_size == (WIDTH, HEIGHT)
    assert (stored.keypoints >= 0).all()
    assert (stored.keypoints <= (WIDTH - 1, HEIGHT - 1)).all()
    for name in ("scales", "scores", "descriptors"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(seen, name))


@pytest.mark.parametrize(
    ("text", "name", "turns", "exif", "by_matching"),
    [
        ("off", "off", (0,), False, False),
        ("0", "off", (0,), False, False),
        ("exif", "exif", TURNS, True, False),
        ("AUTO", "auto", TURNS, True, True),
        ("90", "90", (90,), False, False),
        ("0, 180", "0,180", (0, 180), True, True),
    ],
)
def test_what_is_typed(
    text: str, name: str, turns: tuple[Turn, ...], exif: bool, by_matching: bool
) -> None:
    rotations = read_rotations(text)
    assert (rotations.text, rotations.turns) == (name, turns)
    assert (rotations.exif, rotations.by_matching) == (exif, by_matching)
    assert rotations.is_off == (name == "off")


@pytest.mark.parametrize("text", ["", "45", "0,90", "on", "90,180,270", "-90"])
def test_other_rotations_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--rotations {text}: expected off, exif"):
        read_rotations(text)
