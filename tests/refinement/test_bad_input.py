"""Registration of what has no patch: tiny images, places outside, impossible frames."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.refinement.frames import local_affinities, scale_frames
from r2d2_kapture.refinement.patches import cut_templates, grey_image
from r2d2_kapture.refinement.registration import Registration, register
from tests.scenes.surfaces import SIDE, Pixels, photograph, shifted, waves

Array = npt.NDArray[np.float64]
CONFIG = RefineConfig()
SHIFT = (3.4, -2.7)


@pytest.fixture(scope="module")
def reference() -> Pixels:
    return photograph(waves(), np.eye(3))


@pytest.fixture(scope="module")
def target() -> Pixels:
    return photograph(waves(), shifted(*SHIFT), seed=1)


def grid() -> Array:
    x, y = np.meshgrid(np.linspace(30, 130, 5), np.linspace(30, 130, 5))
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def frames_of(count: int, value: float = 1.0) -> Array:
    return np.tile(value * np.eye(2), (count, 1, 1))


def registered(
    reference: Pixels,
    target: Pixels,
    keypoints: Array,
    start: Array,
    frames: Array | None = None,
    target_frames: Array | None = None,
) -> Registration:
    frames = frames_of(len(keypoints)) if frames is None else frames
    templates = cut_templates(grey_image(reference), keypoints, frames, CONFIG)
    target_frames = frames if target_frames is None else target_frames
    return register(templates, grey_image(target), start, target_frames, CONFIG)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (2, 2), (5, 90), (90, 16)])
def test_images_smaller_than_a_patch_keep_their_keypoints(
    target: Pixels, size: tuple[int, int]
) -> None:
    width, height = size
    rng = np.random.default_rng(0)
    tiny = rng.integers(0, 256, (height, width), np.uint8)
    keypoints = np.array([[0, 0], [width - 1, height - 1], [width / 2, height / 2]])
    for first, second in [(tiny, tiny), (tiny, target), (target, tiny)]:
        found = registered(first, second, keypoints, keypoints + 0.3)
        assert not found.moved.any()
        assert found.keypoints.tobytes() == (keypoints + 0.3).tobytes()


def test_keypoints_at_and_over_the_border_stay_near_or_still(
    reference: Pixels, target: Pixels
) -> None:
    last = SIDE - 1.0
    places = [-1e300, -1e9, -40.0, -0.5, 0.0, 4.0, last - 4, last, last + 0.5, 1e9]
    keypoints = np.array([(x, y) for x in places for y in [*places, 80.0]])
    found = registered(reference, target, keypoints, keypoints + SHIFT)
    outside = ((keypoints < -0.5) | (keypoints > last + 0.5)).any(axis=1)
    assert not found.moved[outside].any()
    np.testing.assert_array_equal(
        found.keypoints[~found.moved], (keypoints + SHIFT)[~found.moved]
    )
    assert np.abs(found.keypoints - keypoints - SHIFT)[~outside].max() < 0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["keypoint", "start", "frame", "target frame"])
def test_what_is_not_finite_is_refused_and_changes_no_other(
    reference: Pixels, target: Pixels, which: str, bad: float
) -> None:
    keypoints, start = grid(), grid() + SHIFT + [0.4, -0.3]
    frames, target_frames = frames_of(25), frames_of(25)
    good = registered(reference, target, keypoints, start, frames, target_frames)
    assert good.moved.all()
    inputs = {
        "keypoint": keypoints,
        "start": start,
        "frame": frames,
        "target frame": target_frames,
    }
    inputs[which][3, 0] = bad
    found = registered(reference, target, keypoints, start, frames, target_frames)
    assert np.flatnonzero(~found.moved).tolist() == [3]
    assert found.keypoints[3].tobytes() == start[3].tobytes()
    others = np.arange(25) != 3
    np.testing.assert_array_equal(found.keypoints[others], good.keypoints[others])


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((2, 2)),
        [[1, 1], [1, 1]],
        [[1, 0], [0, 0]],
        [[1e-300, 0], [0, 1e-300]],
        [[1e6, 0], [0, 1e6]],
        [[1e300, 0], [0, 1e300]],
        [[1e4, 0], [0, 1e-4]],
    ],
    ids=["zero", "singular", "flat", "tiny", "large", "enormous", "stretched"],
)
@pytest.mark.parametrize("both", [False, True], ids=["target", "both"])
def test_impossible_frames_are_refused(
    reference: Pixels, target: Pixels, frame: npt.ArrayLike, both: bool
) -> None:
    keypoints, start = grid(), grid() + SHIFT + [0.4, -0.3]
    impossible = np.tile(np.asarray(frame, float), (25, 1, 1))
    found = registered(
        reference,
        target,
        keypoints,
        start,
        impossible if both else None,
        impossible,
    )
    assert found.keypoints[~found.moved].tobytes() == start[~found.moved].tobytes()
    before, after = (
        np.median(np.linalg.norm(at - keypoints - SHIFT, axis=1))
        for at in (start, found.keypoints)
    )
    assert after <= before


@pytest.mark.parametrize("scale", [0.0, -32.0, np.nan, np.inf])
def test_a_scale_that_is_none_hurts_no_keypoint(
    reference: Pixels, target: Pixels, scale: float
) -> None:
    """Keypoints of third parties have a scale of 0, or none."""
    keypoints, start = grid(), grid() + SHIFT + [0.4, -0.3]
    scales = np.full(25, 32.0)
    scales[::2] = scale
    frames = scale_frames(scales)
    found = registered(reference, target, keypoints, start, frames)
    assert found.moved[1::2].all()
    assert found.keypoints[~found.moved].tobytes() == start[~found.moved].tobytes()
    error = np.linalg.norm(found.keypoints - keypoints - SHIFT, axis=1)
    assert (error <= 0.5 + 1e-9).all()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 30])
@pytest.mark.parametrize("spread", ["one place", "a line", "all over"])
def test_affinities_of_any_matches_are_usable(count: int, spread: str) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 500, (count, 2))
    if spread != "all over":
        points[:, 1] = 100
    if spread == "one place":
        points[:, 0] = 100
    scales = np.full(count, 32.0)
    found = local_affinities(points, 2 * points + 7, scales, 2 * scales)
    assert found.shape == (count, 2, 2)
    np.testing.assert_allclose(found, np.tile(2 * np.eye(2), (count, 1, 1)), atol=0.05)
