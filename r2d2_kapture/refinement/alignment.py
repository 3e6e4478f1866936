"""Gauss-Newton alignment of patches of one resolution.

Inverse-compositional (Baker and Matthews, "Lucas-Kanade 20 years on", IJCV 2004) on
normalised patches, so that a gain of the light and a bias that varies like a plane drop
out, for a shift and a 2x2 shape. The detected place and the given frame are
measurements too: their prior is weighed against the noise that the residual shows, so
that a patch moves only along what it determines.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.refinement.patches import GRADIENT_MARGIN, Windows, product

CONVERGED = 0.01
"""Samples of a step after which the search ends."""

MIN_DEVIATION = 1.0
"""Grey levels, standard deviation of a patch with texture."""

INDEPENDENT = 50.0
"""Number of independent residuals that those of a patch are worth."""

MIN_NOISE = 1e-6
"""Variance of a normalised patch by the rounding to grey levels."""

MIN_GAIN = 0.1
"""Least correlation by which a slope is divided."""

SLOPE_ERROR = 0.005
"""Variance of slopes relative to their energy: along an edge or stripes, what slope
there is is the error of that across, and determines nothing."""

LARGEST_TURN = 0.3
"""Largest change of an entry of the shape in one step; it stays invertible."""

PRODUCTS = ((0, 1, 2), (1, 3, 4), (2, 4, 5))
"""Which of 1, u, v, uu, uv, vv is the product of two of 1, u, v."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """Samples of a patch.

    Attributes:
        weights: (P,) float32 Gaussian that falls to e^-2 at the middle of a side; its
            sum is 1.
        powers: (6, P) float32 1, u, v, uu, uv, vv of the samples' u to the right and v
            down.
        spread: standard deviation of u, and of v, under the weights.
    """

    weights: Tensor
    powers: Tensor
    spread: float

    @classmethod
    def of(cls, radius: int, device: torch.device) -> Grid:
        """Of (2 radius + 1)^2 samples."""
        line = torch.arange(-radius, radius + 1, dtype=torch.float64, device=device)
        v, u = (g.flatten() for g in torch.meshgrid(line, line, indexing="ij"))
        weights = torch.exp(-2 * (u * u + v * v) / radius**2)
        weights = weights / weights.sum()
        powers = torch.stack([torch.ones_like(u), u, v, u * u, u * v, v * v])
        return cls(
            weights=weights.float(),
            powers=powers.float(),
            spread=float((weights * u * u).sum().sqrt()),
        )

    def normalised(self, patch: Tensor) -> tuple[Tensor, Tensor]:
        """(N, P) patches less their plane, of unit norm; (N,) deviations from it.

        Those of less than MIN_DEVIATION stay below the unit norm. Products are under
        the weights.
        """
        level, right, down = self.moments(patch * self.weights).T[:, :, None]
        area = self.spread**2
        centred = patch - level
        centred = centred - (right / area) * self.powers[1]
        centred = centred - (down / area) * self.powers[2]
        deviation = (centred.square() * self.weights).sum(dim=1).sqrt()
        return centred / deviation.clamp_min(MIN_DEVIATION)[:, None], deviation

    def moments(self, values: Tensor, count: int = 3) -> Tensor:
        """(N, count) sums of (N, P) values times the first powers."""
        # no matrix product: it would round a row differently in another number of rows
        parts = [(values * power).sum(dim=1) for power in self.powers[1:count]]
        return torch.stack([values.sum(dim=1), *parts], dim=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """Patches to align others with; six parameters, x: 1, u, v and y: 1, u, v.

    Attributes:
        patch: (N, P) float32 normalised, times the weights.
        slope_x, slope_y: (N, P) float32 of it per sample, times the weights.
        along: (N, 6) float32 products of the six slopes and the patch.
        hessian: (N, 6, 6) float64 products of the slopes, orthogonal to planes and to
            the patch.
        textured: (N,) bool.
    """

    patch: Tensor
    slope_x: Tensor
    slope_y: Tensor
    along: Tensor
    hessian: Tensor
    textured: Tensor

    @classmethod
    def of(cls, samples: Tensor, grid: Grid) -> Reference:
        """From (N, S, S) float32 samples that have a margin for gradients."""
        inner = slice(GRADIENT_MARGIN, -GRADIENT_MARGIN)
        patch, deviation = grid.normalised(samples[:, inner, inner].flatten(1))
        twice = 2 * deviation.clamp_min(MIN_DEVIATION)[:, None]
        x = (samples[:, inner, 2:] - samples[:, inner, :-2]).flatten(1) / twice
        y = (samples[:, 2:, inner] - samples[:, :-2, inner]).flatten(1) / twice
        weighted = x * grid.weights, y * grid.weights
        planes = [grid.moments(one, 6)[:, PRODUCTS] for one in weighted]
        level, right, down = torch.cat(planes, dim=1).unbind(dim=2)
        along = torch.cat([grid.moments(one * patch) for one in weighted], dim=1)
        xx, xy, yy = (
            grid.moments(one * other, 6)[:, PRODUCTS]
            for one, other in ((weighted[0], x), (weighted[0], y), (weighted[1], y))
        )
        hessian = torch.cat(
            [torch.cat([xx, xy], dim=2), torch.cat([xy, yy], dim=2)], dim=1
        )
        for taken in (level, right / grid.spread, down / grid.spread, along):
            hessian = hessian - taken[:, :, None] * taken[:, None, :]
        return cls(
            patch=patch * grid.weights,
            slope_x=weighted[0],
            slope_y=weighted[1],
            along=along,
            hessian=hessian.double(),
            textured=deviation >= MIN_DEVIATION,
        )

    def take(self, rows: Tensor) -> Reference:
        """The references at the given positions."""
        names = (field.name for field in dataclasses.fields(self))
        return Reference(**{name: getattr(self, name)[rows] for name in names})

    def similarity(self, patch: Tensor) -> Tensor:
        """(N,) float32 cross-correlation with normalised patches."""
        return (self.patch * patch).sum(dim=1)

    def step(self, patch: Tensor, gone: Tensor, variance: Tensor, grid: Grid) -> Tensor:
        """(N, 2, 3) float64 by which normalised patches are off: shift and shape.

        Args:
            patch: (N, P) float32 normalised.
            gone: (N, 6) float64 parameters so far, relative to the detected ones.
            variance: (N, 6) float64 of these.
            grid: of the samples.
        """
        found = self.similarity(patch)
        both = (self.slope_x * patch, self.slope_y * patch)
        product = torch.cat([grid.moments(one) for one in both], dim=1)
        gain = found.double().clamp_min(MIN_GAIN)
        gradient = (product - self.along * found[:, None]).double() / gain[:, None]
        noise = (1 / gain.square() - 1).clamp_min(0) / INDEPENDENT + MIN_NOISE
        energy = self.hessian.diagonal(dim1=1, dim2=2).view(-1, 2, 3).sum(dim=1)
        block = self.hessian[:, ::3, ::3]
        spread = block.diagonal(dim1=1, dim2=2).sum(dim=1).square()
        # whole on edges and stripes, next to nothing where both directions are seen
        one_way = SLOPE_ERROR * spread / torch.linalg.det(block).clamp_min(1e-30)
        share = SLOPE_ERROR * one_way.clamp(max=1)
        prior = noise[:, None] / variance + share[:, None] * energy.repeat(1, 2)
        system = self.hessian + torch.diag_embed(prior)
        step: Tensor = torch.linalg.solve(system, gradient + prior * gone)
        return step.view(-1, 2, 3)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pose:
    """Where patches are, relative to their start.

    Attributes:
        shift: (N, 2) float64 samples.
        shape: (N, 2, 2) float64; the frame times it is that of the patch.
    """

    shift: Tensor
    shape: Tensor

    @classmethod
    def start(cls, count: int, device: torch.device) -> Pose:
        """Of no shift and no change of shape."""
        eye = torch.eye(2, dtype=torch.float64, device=device)
        return cls(shift=eye.new_zeros(count, 2), shape=eye.repeat(count, 1, 1))

    def take(self, rows: Tensor) -> Pose:
        """Those at the given positions."""
        return Pose(shift=self.shift[rows], shape=self.shape[rows])

    def put(self, rows: Tensor, other: Pose) -> None:
        """Replace those at the given positions."""
        self.shift[rows] = other.shift
        self.shape[rows] = other.shape

    @property
    def parameters(self) -> Tensor:
        """(N, 6) float64, 0 at the start."""
        change = self.shape - torch.eye(
            2, dtype=torch.float64, device=self.shape.device
        )
        return torch.cat([self.shift[:, :, None], change], dim=2).flatten(1)

    def less(self, step: Tensor) -> Pose:
        """Before the (N, 2, 3) step of Reference.step."""
        a, b, c, d = step[:, :, 1:].clamp(-LARGEST_TURN, LARGEST_TURN).flatten(1).T
        a, d = a + 1, d + 1
        turned = torch.stack([d, -b, -c, a], dim=1) / (a * d - b * c)[:, None]
        shape = product(self.shape, turned.view(-1, 2, 2))
        return Pose(shift=self.shift - moved(shape, step[:, :, 0]), shape=shape)


def moved(matrices: Tensor, vectors: Tensor) -> Tensor:
    """(N, 2) products of matrices and vectors."""
    return (matrices * vectors[:, None, :]).sum(dim=2)


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """Patches of one resolution and where they are searched for.

    Attributes:
        grid: of the samples.
        reference: of N patches.
        around: N windows of the image that is searched.
        start: (N, 2) float64 detected places, pixels.
        variance: (N, 6) float64 of the parameters.
        reach: (N,) float64 greatest shift, samples.
    """

    grid: Grid
    reference: Reference
    around: Windows
    start: Tensor
    variance: Tensor
    reach: Tensor

    @classmethod
    def of(
        cls,
        pixels: Tensor,
        around: Windows,
        start: Tensor,
        detected: Tensor,
        config: RefineConfig,
    ) -> Layer:
        """From templates.

        Args:
            pixels: (N, S, S) uint8 templates.
            around, start: see Layer.
            detected: (N,) float64 samples in a pixel of the level of detection.
            config: prior and reach.
        """
        grid = Grid.of(config.patch_radius, start.device)
        place = (config.prior * detected).square()
        shape = torch.full_like(place, config.shape_prior**2)
        return cls(
            grid=grid,
            reference=Reference.of(pixels.float(), grid),
            around=around,
            start=start,
            variance=torch.stack([place, shape, shape] * 2, dim=1),
            reach=config.max_step * detected,
        )

    def take(self, rows: Tensor) -> Layer:
        """The patches at the given positions."""
        names = ("reference", "around")
        parts = {name: getattr(self, name).take(rows) for name in names}
        arrays = {
            name: getattr(self, name)[rows] for name in ("start", "variance", "reach")
        }
        return Layer(grid=self.grid, **parts, **arrays)

    def places(self, pose: Pose) -> Tensor:
        """(N, 2) float64 pixels."""
        return self.start + moved(self.around.frames, pose.shift)

    def inside(self, pose: Pose, margin: int = GRADIENT_MARGIN) -> Tensor:
        """(N,) bool, whether the patches and a margin lie in the image."""
        return self.around.inside(self.places(pose), pose.shape, margin)

    def patches(self, pose: Pose, margin: int = 0) -> Tensor:
        """(N, S * S) float32 samples with a margin."""
        return self.around.read(self.places(pose), pose.shape, margin)

    def similarity(self, pose: Pose) -> Tensor:
        """(N,) float32 cross-correlation of the patches with their references."""
        return self.similarity_of(self.patches(pose))

    def similarity_of(self, patches: Tensor) -> Tensor:
        """(N,) float32 cross-correlation of (N, P) samples with the references."""
        return self.reference.similarity(self.grid.normalised(patches)[0])

    def search(self, pose: Pose, max_iterations: int) -> Pose:
        """Where patches match best, from a pose inside the image.

        Patches that come too far or leave the image end there.
        """
        found = Pose(shift=pose.shift.clone(), shape=pose.shape.clone())
        active = torch.arange(len(self.start), device=self.start.device)
        layer = self
        for _ in range(max_iterations):
            if not len(active):
                break
            here = found.take(active)
            patch, _ = self.grid.normalised(layer.patches(here))
            step = layer.reference.step(
                patch, here.parameters, layer.variance, self.grid
            )
            here = here.less(step)
            found.put(active, here)
            going = step[:, :, 0].abs().amax(dim=1) > CONVERGED
            going &= here.shift.norm(dim=1) <= layer.reach
            going &= layer.inside(here)
            rows = going.nonzero()[:, 0]
            if len(rows) < len(active):
                active, layer = active[rows], layer.take(rows)
        return found

    def way_back(self, pixels: Tensor, pose: Pose) -> Tensor:
        """(N,) samples that a template would move, were it searched with the patches.

        Args:
            pixels: (N, S, S) uint8 templates.
            pose: of the patches, inside the image.
        """
        side = pixels.shape[-1]
        beside = self.patches(pose, GRADIENT_MARGIN).view(-1, side, side)
        reference = Reference.of(beside, self.grid)
        inner = slice(GRADIENT_MARGIN, -GRADIENT_MARGIN)
        template, _ = self.grid.normalised(pixels[:, inner, inner].flatten(1).float())
        none = torch.zeros_like(self.variance)
        step = reference.step(template, none, self.variance, self.grid)
        return step[:, :, 0].square().sum(dim=1).sqrt()
