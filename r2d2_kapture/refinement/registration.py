"""Registration of keypoints against patches of other images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.refinement.alignment import (
    Layer,
    Reference,
    normalised,
    window_weights,
)
from r2d2_kapture.refinement.patches import (
    GRADIENT_MARGIN,
    GreyImage,
    Templates,
    Windows,
    chunk_rows,
    windows,
)

Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

Outcome = Literal["moved", "border", "texture", "far", "similarity", "worse", "return"]
"""What became of a keypoint: it moved, or why it did not: a patch leaves its image; has
no texture; matches best too far away; is not similar; is less similar than before; or
leads back to another place of the reference."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
MOVED, BORDER, TEXTURE, FAR, SIMILARITY, WORSE, RETURN = range(len(OUTCOMES))

MIN_STEP = 0.7
"""Pixels of the image in a sample of a layer that still shows more than the coarser
one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Registration:
    """Result of a registration.

    Attributes:
        keypoints: (N, 2) float64 pixels; where refused, those given, to the bit.
        steps: (N,) float64 pixels moved; 0 where refused.
        before, after: (N,) float32 normalised cross-correlation with the template at
            the given place and at the place found; NaN where a patch leaves its image.
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
        found = np.bincount(self.outcomes, minlength=len(OUTCOMES)).tolist()
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
    side = templates.pixels.shape[-1]
    device = image.pixels.device
    start = torch.from_numpy(np.asarray(keypoints, np.float64)).to(device)
    given = torch.from_numpy(np.asarray(frames, np.float64)).to(device)
    zooms = torch.from_numpy(templates.zooms).to(device)
    found = _Found.none(start)
    for rows in torch.split(torch.arange(len(start), device=device), chunk_rows(side)):
        pixels = torch.from_numpy(templates.pixels[rows.cpu().numpy()]).to(device)
        for layer in reversed(range(pixels.shape[1])):
            zoom = zooms[rows] * 2**layer
            _align(found, rows, pixels[:, layer], image, given, zoom, config)
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
    """What the layers so far have found, filled in by each."""

    start: Tensor
    places: Tensor
    before: Tensor
    after: Tensor
    outcomes: Tensor

    @classmethod
    def none(cls, start: Tensor) -> _Found:
        unknown = torch.full_like(start[:, 0], torch.nan, dtype=torch.float32)
        return cls(
            start=start,
            places=start.clone(),
            before=unknown,
            after=unknown.clone(),
            outcomes=torch.full_like(unknown, BORDER, dtype=torch.int8),
        )


def _align(
    found: _Found,
    rows: Tensor,
    pixels: Tensor,
    image: GreyImage,
    given: Tensor,
    zoom: Tensor,
    config: RefineConfig,
) -> None:
    """Align one layer of some rows, from where the coarser layers ended.

    Args:
        found: of all rows, updated.
        rows: (R,) int64 of this part.
        pixels: (R, S, S) uint8 templates of this layer.
        image: that is searched.
        given: (N, 2, 2) float64 frames of all rows.
        zoom: (R,) float64 of the frames of this layer.
        config: of the registration.
    """
    frames = given[rows] * zoom[:, None, None]
    steps = torch.linalg.det(frames).abs().sqrt()
    shown = (steps >= MIN_STEP) | found.after[rows].isnan()
    cut = pixels.flatten(1).amax(dim=1) > 0
    around = windows(image, frames, config.patch_radius)
    beside = windows(image, frames, config.patch_radius + GRADIENT_MARGIN)
    readable = beside.inside(found.start[rows]) & beside.inside(found.places[rows])
    usable = (shown & cut & readable).nonzero()[:, 0]
    if not len(usable):
        return
    weights = window_weights(config.patch_radius, frames.device)
    layer = Layer(
        weights=weights,
        reference=Reference.of(pixels[usable].float(), weights),
        around=around.take(usable),
        frames=frames[usable],
        start=found.start[rows[usable]],
        variance=(config.prior / zoom[usable]).square(),
        reach=config.max_step / zoom[usable],
    )
    shift = torch.linalg.solve(layer.frames, found.places[rows[usable]] - layer.start)
    ended = layer.search(shift, config.max_iterations)
    within = beside.take(usable).inside(layer.places(ended))
    ended = torch.where(within[:, None], ended, 0.0)
    before = layer.similarity(torch.zeros_like(ended))
    after = layer.similarity(ended)
    back = _way_back(layer, beside.take(usable), pixels[usable], ended)
    outcomes = found.outcomes[rows[usable]]
    outcomes[:] = MOVED
    for outcome, holds in (
        (RETURN, back > config.max_return),
        (WORSE, after < before),
        (SIMILARITY, after < config.min_similarity),
        (FAR, ended.norm(dim=1) > layer.reach),
        (TEXTURE, ~layer.reference.textured),
        (BORDER, ~within),
    ):
        outcomes[holds] = outcome
    found.places[rows[usable]] = layer.places(ended)
    found.before[rows[usable]] = before
    found.after[rows[usable]] = after
    found.outcomes[rows[usable]] = outcomes


def _way_back(layer: Layer, beside: Windows, pixels: Tensor, shift: Tensor) -> Tensor:
    """(N,) samples that the patches found would move the template, were it searched."""
    side = pixels.shape[-1]
    samples = beside.read(layer.places(shift)).view(-1, side, side)
    reference = Reference.of(samples, layer.weights)
    inner = slice(GRADIENT_MARGIN, -GRADIENT_MARGIN)
    template = pixels[:, inner, inner].flatten(1).float()
    patch, _ = normalised(template, layer.weights)
    step = reference.step(patch, torch.zeros_like(shift), layer.variance)
    return step.square().sum(dim=1).sqrt()
