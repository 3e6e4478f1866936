"""Gauss-Newton alignment of patches of one resolution.

Inverse-compositional (Baker and Matthews, "Lucas-Kanade 20 years on", IJCV 2004) on
normalised patches, so that gain and bias of the light drop out. The detected place is a
measurement too: its prior is weighed against the noise that the residual shows, so that
a patch moves only along what it determines.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from r2d2_kapture.refinement.patches import GRADIENT_MARGIN, Windows

CONVERGED = 0.01
"""Samples of a step after which the search ends."""

MIN_DEVIATION = 1.0
"""Grey levels, standard deviation of a patch with texture."""

INDEPENDENT = 25.0
"""Number of independent residuals that those of a patch are worth."""


def window_weights(radius: int, device: torch.device) -> Tensor:
    """(S * S,) float32 Gaussian that falls to e^-2 at the middle of a side, sum 1."""
    grid = torch.arange(-radius, radius + 1, dtype=torch.float64, device=device)
    line = torch.exp(-2 * (grid / radius) ** 2)
    weights = (line[:, None] * line).flatten()
    return (weights / weights.sum()).float()


def normalised(patch: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(N, P) patches of zero mean and unit norm under the weights, and (N,) deviations.

    Those of less than MIN_DEVIATION stay below the unit norm.
    """
    centred = patch - (patch * weights).sum(dim=1, keepdim=True)
    deviation = (centred.square() * weights).sum(dim=1).sqrt()
    return centred / deviation.clamp_min(MIN_DEVIATION)[:, None], deviation


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """Patches to align others with.

    Attributes:
        patch: (N, P) float32 normalised, times the weights.
        slope_x, slope_y: (N, P) float32 of it per sample, orthogonal to 1 and to it,
            times the weights.
        xx, xy, yy: (N,) float64 products of the slopes.
        textured: (N,) bool.
    """

    patch: Tensor
    slope_x: Tensor
    slope_y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor
    textured: Tensor

    @classmethod
    def of(cls, samples: Tensor, weights: Tensor) -> Reference:
        """From (N, S, S) float32 samples that have a margin for gradients."""
        inner = slice(GRADIENT_MARGIN, -GRADIENT_MARGIN)
        gradients = (
            samples[:, inner, 2:] - samples[:, inner, :-2],
            samples[:, 2:, inner] - samples[:, :-2, inner],
        )
        patch, deviation = normalised(samples[:, inner, inner].flatten(1), weights)
        weighted = patch * weights
        slopes = []
        for gradient in gradients:
            slope = (
                gradient.flatten(1) / (2 * deviation.clamp_min(MIN_DEVIATION))[:, None]
            )
            slope = slope - (slope * weights).sum(dim=1, keepdim=True)
            slopes.append(slope - (slope * weighted).sum(dim=1, keepdim=True) * patch)
        x, y = slopes
        xx, xy, yy = ((a * b * weights).sum(dim=1) for a, b in ((x, x), (x, y), (y, y)))
        return cls(
            patch=weighted,
            slope_x=x * weights,
            slope_y=y * weights,
            xx=xx.double(),
            xy=xy.double(),
            yy=yy.double(),
            textured=deviation >= MIN_DEVIATION,
        )

    def take(self, rows: Tensor) -> Reference:
        """The references at the given positions."""
        names = (field.name for field in dataclasses.fields(self))
        return Reference(**{name: getattr(self, name)[rows] for name in names})

    def similarity(self, patch: Tensor) -> Tensor:
        """(N,) float32 cross-correlation with normalised patches."""
        return (self.patch * patch).sum(dim=1)

    def step(self, patch: Tensor, shift: Tensor, variance: Tensor) -> Tensor:
        """(N, 2) float64 samples by which normalised patches lie too far.

        Args:
            patch: (N, P) float32 normalised.
            shift: (N, 2) float64 samples that they were moved from the detected place.
            variance: (N,) float64 of that place.
        """
        gain = self.similarity(patch).double().clamp_min(0.1)
        along_x = (self.slope_x * patch).sum(dim=1).double() / gain
        along_y = (self.slope_y * patch).sum(dim=1).double() / gain
        noise = (1 - gain.square()).clamp_min(0) / gain.square() / INDEPENDENT
        prior = noise / variance
        xx, yy = self.xx + prior, self.yy + prior
        bx, by = along_x + prior * shift[:, 0], along_y + prior * shift[:, 1]
        determinant = (xx * yy - self.xy.square()).clamp_min(1e-12)
        return torch.stack(
            [
                (yy * bx - self.xy * by) / determinant,
                (xx * by - self.xy * bx) / determinant,
            ],
            dim=1,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """Patches of one resolution and where they are searched for.

    Attributes:
        weights: (P,) float32 of the samples.
        reference: of N patches.
        around: N windows of the image that is searched.
        frames: (N, 2, 2) float64 of a sample of this layer.
        start: (N, 2) float64 detected places, pixels.
        variance: (N,) float64 of these, samples squared.
        reach: (N,) float64 greatest distance from them, samples.
    """

    weights: Tensor
    reference: Reference
    around: Windows
    frames: Tensor
    start: Tensor
    variance: Tensor
    reach: Tensor

    def take(self, rows: Tensor) -> Layer:
        """The patches at the given positions."""
        names = ("frames", "start", "variance", "reach")
        return Layer(
            weights=self.weights,
            reference=self.reference.take(rows),
            around=self.around.take(rows),
            **{name: getattr(self, name)[rows] for name in names},
        )

    def places(self, shift: Tensor) -> Tensor:
        """(N, 2) float64 pixels at (N, 2) float64 samples from the detected places."""
        return self.start + (self.frames * shift[:, None, :]).sum(dim=2)

    def patches(self, shift: Tensor) -> Tensor:
        """(N, P) float32 normalised patches."""
        return normalised(self.around.read(self.places(shift)), self.weights)[0]

    def similarity(self, shift: Tensor) -> Tensor:
        """(N,) float32 cross-correlation of the patches with their references."""
        return self.reference.similarity(self.patches(shift))

    def search(self, shift: Tensor, max_iterations: int) -> Tensor:
        """(N, 2) float64 samples from the detected places where patches match best.

        Args:
            shift: (N, 2) float64 to begin with.
            max_iterations: after which it ends where it is.
        """
        shift = shift.clone()
        active = torch.arange(len(shift), device=shift.device)
        layer = self
        for _ in range(max_iterations):
            if not len(active):
                break
            here = shift[active]
            step = layer.reference.step(layer.patches(here), here, layer.variance)
            here = here - step
            shift[active] = here
            going = step.norm(dim=1) > CONVERGED
            going &= here.norm(dim=1) <= layer.reach
            going &= layer.around.inside(layer.places(here))
            rows = going.nonzero()[:, 0]
            if len(rows) < len(active):
                active, layer = active[rows], layer.take(rows)
        return shift
