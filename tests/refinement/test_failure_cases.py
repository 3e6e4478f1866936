"""Refinement where registration must fail or may be misled: never worse, no crash."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest

from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.refinement.frames import scale_frames
from r2d2_kapture.refinement.patches import cut_templates, grey_image
from r2d2_kapture.refinement.registration import Registration, register
from tests.scenes.surfaces import (
    SIDE,
    Light,
    Texture,
    about_the_middle,
    affinities_of,
    checkers,
    constant,
    moved_by,
    photograph,
    shifted,
    stripes,
    tilted,
    turned,
    waves,
    zoomed,
)

Array = npt.NDArray[np.float64]
CONFIG = RefineConfig()
LEVEL_SIDE = 32.0
"""Patch side in pixels of a keypoint found on the image itself."""
NOISE = 0.5
"""Of the detector, in pixels of the level that a keypoint was found at."""
SHIFT = shifted(3.4, -2.7)


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """Two photographs of a plane, and keypoints of the second that are off by noise.

    Attributes:
        texture: of the plane.
        target_from_reference: the homography between the photographs.
        lights: of the reference and of the target.
        blur: of the target.
        level: of the reference keypoints: pixels of the image in one of it.
        known: what the frames of the target follow: all of the homography, its scale,
            or nothing.
        within: part of the reference that the keypoints are in: x, y, x, y.
    """

    texture: Texture = field(default_factory=waves)
    target_from_reference: Array = field(default_factory=lambda: SHIFT)
    lights: tuple[Light | None, Light | None] = (None, None)
    blur: tuple[float, float] = (0.0, 0.0)
    level: float = 1.0
    known: str = "all"
    within: tuple[float, float, float, float] = (24.0, 24.0, SIDE - 25.0, SIDE - 25.0)

    def registered(self) -> Registered:
        reference, target = (
            photograph(self.texture, homography, light, blur=blur, seed=seed)
            for seed, (homography, light, blur) in enumerate(
                [
                    (np.eye(3), self.lights[0], (0.0, 0.0)),
                    (self.target_from_reference, self.lights[1], self.blur),
                ]
            )
        )
        keypoints = self.keypoints()
        frames = scale_frames(np.full(len(keypoints), LEVEL_SIDE * self.level))
        templates = cut_templates(grey_image(reference), keypoints, frames, CONFIG)
        affinities = affinities_of(self.target_from_reference, keypoints)
        scales = np.sqrt(np.abs(np.linalg.det(affinities)))
        if self.known == "scale":
            affinities = scales[:, None, None] * np.eye(2)
        truth = moved_by(self.target_from_reference, keypoints)
        noise = np.random.default_rng(5).normal(0, NOISE, truth.shape)
        start = truth + noise * self.level * scales[:, None]
        found = register(
            templates, grey_image(target), start, affinities @ frames, CONFIG
        )
        return Registered(start=start, truth=truth, found=found)

    def keypoints(self) -> Array:
        """(N, 2) on a jittered grid of the reference, visible in the target."""
        left, top, right, bottom = self.within
        grid = np.meshgrid(np.linspace(left, right, 11), np.linspace(top, bottom, 11))
        points = np.stack(grid, axis=-1).reshape(-1, 2)
        points += np.random.default_rng(4).uniform(-2, 2, points.shape)
        there = moved_by(self.target_from_reference, points)
        seen = ((there > 18) & (there < SIDE - 19)).all(axis=1)
        return np.asarray(points[seen])


@dataclass(frozen=True, kw_only=True, eq=False)
class Registered:
    """What registration made of keypoints whose true places are known."""

    start: Array
    truth: Array
    found: Registration

    @property
    def before(self) -> Array:
        return np.linalg.norm(self.start - self.truth, axis=1)

    @property
    def after(self) -> Array:
        return np.linalg.norm(self.found.keypoints - self.truth, axis=1)

    def assert_sound(self) -> None:
        """The median is no worse, no step too long, what was refused is untouched."""
        moved = self.found.moved
        assert len(self.start) >= 20
        assert np.isfinite(self.found.keypoints).all()
        assert_untouched(self.found, self.start)
        steps = np.linalg.norm(self.found.keypoints - self.start, axis=1)
        np.testing.assert_allclose(self.found.steps[moved], steps[moved], atol=1e-6)
        assert np.median(self.after) <= np.median(self.before)


def assert_untouched(found: Registration, start: Array) -> None:
    kept = ~found.moved
    assert found.keypoints.dtype == np.float64
    assert found.keypoints[kept].tobytes() == start[kept].tobytes()


def darker(levels: Array, x: Array, y: Array) -> Array:
    return 0.3 * levels


def gamma(levels: Array, x: Array, y: Array) -> Array:
    return 255 * (levels.clip(0, 255) / 255) ** 2.2


def overexposed(levels: Array, x: Array, y: Array) -> Array:
    return 2.2 * levels


def lit_from_left(levels: Array, x: Array, y: Array) -> Array:
    return levels * (1 - 0.8 * x / SIDE)


def lit_from_right(levels: Array, x: Array, y: Array) -> Array:
    return levels * (0.2 + 0.8 * x / SIDE)


def negative(levels: Array, x: Array, y: Array) -> Array:
    return 255 - levels


def highlights(dx: float, dy: float) -> Light:
    """Twenty-five bright spots on a grid, which move apart from the surface."""

    def light(levels: Array, x: Array, y: Array) -> Array:
        u, v = (x - dx) % 32 - 16, (y - dy) % 32 - 16
        return levels + 400 * np.exp(-(u**2 + v**2) / 18)

    return light


def passing(dx: float, dy: float) -> Light:
    """Discs of another texture in front of the surface, a third of the image."""
    own = waves(9)

    def light(levels: Array, x: Array, y: Array) -> Array:
        u, v = x - dx, y - dy
        disc = (u % 40 - 20) ** 2 + (v % 40 - 20) ** 2 < 13**2
        return np.where(disc, own(u, v), levels)

    return light


def vignetted(levels: Array, x: Array, y: Array) -> Array:
    """Black around a rectangle that stands still while the surface moves."""
    shown = (np.minimum(x, y) > 30) & (np.maximum(x, y) < SIDE - 31)
    return np.where(shown, levels, -100)


CLEAR = {
    "shift": (Case(), 5),
    "identical": (Case(target_from_reference=np.eye(3)), 5),
    "darker": (Case(lights=(None, darker)), 4),
    "gamma": (Case(lights=(None, gamma)), 3),
    "lit from the other side": (Case(lights=(lit_from_left, lit_from_right)), 3),
    "zoom in": (Case(target_from_reference=zoomed(2)), 4),
    "zoom out": (Case(target_from_reference=zoomed(0.5), level=2), 4),
    "tilt": (Case(target_from_reference=tilted(45)), 3),
    "turned 10, frames follow": (Case(target_from_reference=turned(10)), 4),
    "turned 90, frames follow": (Case(target_from_reference=turned(90)), 4),
    "mirrored, frames follow": (
        Case(target_from_reference=about_the_middle([[-1, 0], [0, 1]])),
        4,
    ),
}
"""By name, and by how much the median error must fall at least."""
HARD = {
    "overexposed": Case(lights=(None, overexposed)),
    "tilt, only the scale known": Case(target_from_reference=tilted(45), known="scale"),
    "turned 10, only the scale known": Case(
        target_from_reference=turned(10), known="scale"
    ),
    "motion blur": Case(blur=(5.5, 2.5)),
    "strong motion blur": Case(blur=(9.0, 4.0)),
    "highlights": Case(lights=(highlights(0, 0), highlights(9, 5))),
    "moving objects": Case(lights=(passing(0, 0), passing(14, -6))),
    "masked border": Case(lights=(vignetted, vignetted)),
    "masked border, on its edge": Case(
        lights=(vignetted, vignetted), within=(26, 26, 38, 134)
    ),
    "fine checkers": Case(texture=checkers(4)),
    "coarse checkers": Case(texture=checkers(9, turned=20)),
    "fine stripes": Case(texture=stripes(4, 30)),
    "stripes": Case(texture=stripes(10, 30)),
    "coarse stripes": Case(texture=stripes(20, 70)),
    "fine grain": Case(texture=waves(lengths=(2.2, 3.0))),
    "faint": Case(texture=waves(contrast=2.0)),
    "soft": Case(texture=waves(lengths=(60, 200))),
}
HOPELESS = {
    "textureless": Case(texture=constant),
    "negative": Case(lights=(None, negative)),
    "turned 90, only the scale known": Case(
        target_from_reference=turned(90), known="scale"
    ),
    "another surface": Case(lights=(None, lambda _, x, y: waves(3)(x, y))),
}
"""Nothing but refusal is right."""


@pytest.mark.parametrize("name", CLEAR)
def test_what_shows_clearly_is_found(name: str) -> None:
    case, factor = CLEAR[name]
    result = case.registered()
    result.assert_sound()
    assert np.median(result.after) <= np.median(result.before) / factor
    assert result.found.moved.mean() > 0.8


@pytest.mark.parametrize("name", HARD)
def test_what_misleads_makes_nothing_worse(name: str) -> None:
    HARD[name].registered().assert_sound()


@pytest.mark.parametrize("name", HOPELESS)
def test_what_cannot_be_found_is_refused(name: str) -> None:
    result = HOPELESS[name].registered()
    result.assert_sound()
    assert result.found.moved.mean() < 0.1
