"""Registration of keypoints against patches of other images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.refinement.alignment import Layer, Pose
from r2d2_kapture.refinement.patches import (
    GRADIENT_MARGIN,
    GreyImage,
    Templates,
    Windows,
    chunk_rows,
    shows_picture,
)

Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

Outcome = Literal[
    "moved", "still", "border", "texture", "far", "similarity", "worse", "return"
]
"""What became of a keypoint: it moved; it lies right to LEAST_STEP; or why
it did not move: a patch leaves its image; has no texture; matches best too far away; is
not similar; is less similar than before; or leads back to another place of the
reference."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
MOVED, STILL, BORDER, TEXTURE, FAR, SIMILARITY, WORSE, RETURN = range(len(OUTCOMES))

LEAST_STEP = 0.02
"""Samples of a step worth making: rounding to grey levels moves patches by as much."""

MIN_STEP = 0.7
"""Pixels of the image in a sample of a layer that still shows more than the coarser
one."""

LEAST_AREA = 0.1
"""Least side of a sample's area relative to its steps; those of other frames have no
inverse."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Registration:
    """Result of a registration.

    Attributes:
        keypoints: (N, 2) float64 pixels; where refused, those given, to the bit.
        steps: (N,) float64 pixels moved; 0 where refused.
        before, after: (N,) float32 normalised cross-correlation with the template at
            the given place and at the place found, refused or not; NaN where a patch
            leaves its image.
        outcomes: (N,) int8 index into OUTCOMES.
    """

    keypoints: Array
    steps: Array
    before: npt.NDArray[np.float32]
    after: npt.NDArray[np.float32]
    outcomes: npt.NDArray[np.int8]

    @property
    def moved(self) -> BoolArray:
        """(N,) bool."""
        return np.equal(self.outcomes, MOVED)

    @property
    def counts(self) -> dict[Outcome, int]:
        """Number of keypoints by what became of them."""
        return count_outcomes(self.outcomes)


def count_outcomes(outcomes: npt.NDArray[np.int8]) -> dict[Outcome, int]:
    """How many of (N,) indices into OUTCOMES are of each."""
    found = np.bincount(outcomes, minlength=len(OUTCOMES)).tolist()
    return dict(zip(OUTCOMES, found, strict=True))


@torch.inference_mode()
def register(
    templates: Templates,
    image: GreyImage,
    keypoints: Array,
    frames: Array,
    config: RefineConfig,
) -> Registration:
    """Move keypoints to where their surroundings match those of a reference best.

    The reference stays where it is. Results are the same for any number of threads.

    Args:
        templates: of the reference observations, see patches.cut_templates.
        image: of the keypoints.
        keypoints: (N, 2) float64 pixels, where they were detected.
        frames: (N, 2, 2) float64: the affinity from the reference image to this one
            times the frame that the template was cut with.
        config: the one that the templates were cut with.
    """
    device = image.pixels.device
    start = torch.from_numpy(np.asarray(keypoints, np.float64)).to(device)
    given = torch.from_numpy(np.asarray(frames, np.float64)).to(device)
    zooms = [
        torch.from_numpy(templates.layer_zooms(layer)).to(device)
        for layer in range(templates.pixels.shape[1])
    ]
    parts = []
    size = chunk_rows(templates.pixels.shape[-1])
    for rows in torch.split(torch.arange(len(start)), size):
        pixels = torch.from_numpy(templates.pixels[rows.numpy()]).to(device)
        found = _Found.none(start[rows])
        for layer in reversed(range(pixels.shape[1])):
            zoom = zooms[layer][rows]
            _align(found, pixels[:, layer], image, given[rows], zoom, config)
        parts.append(found)
    found = _Found(
        **{
            name: torch.cat([getattr(part, name) for part in parts])
            for name in ("start", "shapes", "places", "before", "after", "outcomes")
        }
    )
    refined = torch.where((found.outcomes == MOVED)[:, None], found.places, start)
    return Registration(
        keypoints=refined.cpu().numpy(),
        steps=(refined - start).norm(dim=1).cpu().numpy(),
        before=found.before.cpu().numpy(),
        after=found.after.cpu().numpy(),
        outcomes=found.outcomes.cpu().numpy(),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Found:
    """What the layers so far have found, filled in by each.

    Attributes:
        start: (N, 2) float64 detected places.
        places: (N, 2) float64 pixels found.
        shapes: (N, 2, 2) float64 found.
        before, after: (N,) float32 similarities, NaN unless a layer was readable.
        outcomes: (N,) int8.
    """

    start: Tensor
    places: Tensor
    shapes: Tensor
    before: Tensor
    after: Tensor
    outcomes: Tensor

    @classmethod
    def none(cls, start: Tensor) -> _Found:
        unknown = torch.full_like(start[:, 0], torch.nan, dtype=torch.float32)
        return cls(
            start=start,
            places=start.clone(),
            shapes=Pose.start(len(start), start.device).shape,
            before=unknown,
            after=unknown.clone(),
            outcomes=torch.full_like(unknown, BORDER, dtype=torch.int8),
        )


def _align(
    found: _Found,
    pixels: Tensor,
    image: GreyImage,
    given: Tensor,
    zoom: Tensor,
    config: RefineConfig,
) -> None:
    """Align one layer, from where the coarser ones ended.

    Args:
        found: by the coarser layers, updated.
        pixels: (N, S, S) uint8 templates of this layer.
        image: that is searched.
        given: (N, 2, 2) float64 frames.
        zoom: (N,) float64 of a sample of this layer relative to them.
        config: of the registration.
    """
    frames = given * zoom[:, None, None]
    around = Windows.of(image, frames, config.patch_radius)
    rows = _readable(found, pixels, around).nonzero()[:, 0]
    if not len(rows):
        return
    start, pixels, around = found.start[rows], pixels[rows], around.take(rows)
    layer = Layer.of(pixels, around, start, 1 / zoom[rows], config)
    shift = torch.linalg.solve(around.frames, found.places[rows] - start)
    begun = Pose(shift=shift, shape=found.shapes[rows])
    ended = layer.search(begun, config.max_iterations)
    within = layer.inside(ended)
    outside = (~within).nonzero()[:, 0]
    none = Pose.start(len(rows), start.device)
    ended.put(outside, none.take(outside))
    patches = layer.patches(ended)
    before, after = layer.similarity(none), layer.similarity_of(patches)
    outcomes = torch.full_like(found.outcomes[rows], MOVED)
    for outcome, holds in (
        (STILL, ended.shift.norm(dim=1) <= LEAST_STEP),
        (RETURN, layer.way_back(pixels, ended) > config.max_return),
        (WORSE, after < before),
        (SIMILARITY, after < config.min_similarity),
        (FAR, ended.shift.norm(dim=1) > layer.reach),
        (TEXTURE, ~layer.reference.textured),
        (BORDER, ~within | ~shows_picture(patches)),
    ):
        outcomes[holds] = outcome
    found.places[rows], found.shapes[rows] = layer.places(ended), ended.shape
    found.before[rows], found.after[rows] = before, after
    found.outcomes[rows] = outcomes


def _readable(found: _Found, pixels: Tensor, around: Windows) -> Tensor:
    """(N,) bool, whether a layer can be read and shows more than the coarser ones."""
    steps: Tensor = torch.linalg.det(around.frames).abs().sqrt()
    readable = (steps >= MIN_STEP) | found.after.isnan()
    readable &= steps > LEAST_AREA * around.frames.flatten(1).norm(dim=1)
    readable &= pixels.flatten(1).amax(dim=1) > 0
    shape = Pose.start(len(steps), steps.device).shape
    readable &= around.inside(found.start, shape, GRADIENT_MARGIN)
    return readable & around.inside(found.places, found.shapes, GRADIENT_MARGIN)
