"""The training loss of D2-Net (Dusmanu et al., "D2-Net: A Trainable CNN for Joint
Description and Detection of Local Features", CVPR 2019).

Cells of two feature maps that show the same thing should have descriptors more alike
than any others, above all where both maps detect something: soft detection scores
(section 3.2) weigh the triplet margins of descriptors (section 4.1). So descriptors
become distinct where keypoints are, and keypoints appear where descriptors are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r2d2_kapture.config.d2net_training import D2NetTrainingConfig
from r2d2_kapture.coordinates import feature_cell_from_image, image_from_feature_cell
from r2d2_kapture.models.network import at_least_float32

NEIGHBOURS = 3
"""Side of the window, in cells, within which a feature is to stand out."""
FLOOR = 1e-12
"""What is not above it counts as zero, so that no quotient has a boundless slope."""


@dataclass(frozen=True, kw_only=True)
class MarginTerms:
    """The loss of a pair and what it is made of.

    Attributes:
        loss: scalar to differentiate.
        positive_distance: mean distance of the descriptors of true matches, detached.
        negative_distance: mean distance to the hardest wrong match, detached.
    """

    loss: Tensor
    positive_distance: Tensor
    negative_distance: Tensor


@dataclass(frozen=True, kw_only=True)
class D2NetLossTerms:
    """The loss of a batch and what it is made of.

    Attributes:
        total: scalar to differentiate, the mean over the pairs that count; connected to
            every map, with zero gradients where none counts.
        positive_distance: mean distance of the descriptors of true matches, 0 to 2,
            detached; 0 where no pair counts.
        negative_distance: mean distance to the hardest wrong matches, likewise.
        correspondences: of the pairs that count, all together.
        skipped: pairs that do not count: too few correspondences, or no detection at
            any of them.
    """

    total: Tensor
    positive_distance: Tensor
    negative_distance: Tensor
    correspondences: int
    skipped: int


class D2NetLoss(nn.Module):
    """The margin ranking loss, weighted by soft detections, of a batch of pairs.

    Computed in float32 at least, whatever the precision of the maps.
    """

    def __init__(self, config: D2NetTrainingConfig = D2NetTrainingConfig()) -> None:
        super().__init__()
        self.config = config

    def forward(
        self, features1: Tensor, features2: Tensor, aflow: Tensor
    ) -> D2NetLossTerms:
        """Compare two batches of feature maps.

        Args:
            features1: (B, D, h, w) of the first images, 0 or more.
            features2: (B, D, h, w) of the second images, likewise.
            aflow: (B, 2, H, W) float32 position (x, y) in image 2 of each pixel of
                image 1, in pixels whose centre is the origin; NaN where unknown.

        Raises:
            ValueError: the maps differ in size.
        """
        if features1.shape != features2.shape or len(features1) != len(aflow):
            raise ValueError(
                f"maps {tuple(features1.shape)} and {tuple(features2.shape)}, flow "
                f"{tuple(aflow.shape)}: expected as many of each, the maps alike"
            )
        features1, features2 = at_least_float32(features1), at_least_float32(features2)
        scores1 = soft_detection_scores(features1)
        scores2 = soft_detection_scores(features2)
        counted, correspondences = [], 0
        for maps1, maps2, weights1, weights2, flow in zip(
            features1, features2, scores1, scores2, aflow, strict=True
        ):
            cells1, cells2 = corresponding_cells(flow, (maps1.shape[1], maps1.shape[2]))
            if len(cells1) < self.config.least_correspondences:
                continue
            weights = weights1.flatten()[cells1] * weights2.flatten()[cells2]
            terms = margin_loss(maps1, maps2, (cells1, cells2), weights, self.config)
            if terms is not None:
                counted.append(terms)
                correspondences += len(cells1)
        connected = 0 * (features1.sum() + features2.sum())
        means = [
            torch.stack(values).mean() if values else connected.detach()
            for values in (
                [terms.loss for terms in counted],
                [terms.positive_distance for terms in counted],
                [terms.negative_distance for terms in counted],
            )
        ]
        return D2NetLossTerms(
            total=means[0] + connected,
            positive_distance=means[1],
            negative_distance=means[2],
            correspondences=correspondences,
            skipped=len(aflow) - len(counted),
        )


def soft_detection_scores(features: Tensor) -> Tensor:
    """How much each cell is a keypoint, differentiably (section 3.2).

    gamma = max over channels k of alpha_k beta_k, where alpha_k = exp(D_k) / (sum of
    exp(D_k) over the 3x3 neighbours) is how far channel k stands out in its place,
    and beta_k = D_k / (max of D over the channels) how far it stands out among the
    channels; the score is gamma over its sum in the image.

    Two things go beyond the equations. Features are divided by the largest one of their
    map before the exponential: those of VGG reach hundreds, where float32 overflows,
    and where alpha would be 0 or 1 without a slope; to subtract the maximum instead
    cures the overflow only. And features outside the map count as 0, as in the
    detection of keypoints, so that a border is no better a place than others.

    Args:
        features: (B, D, h, w), 0 or more.

    Returns:
        (B, h, w), the sum over each map is 1; 0 everywhere in a map without features.
    """
    relative = features / _divisor(features.amax(dim=(1, 2, 3), keepdim=True))
    exponentials = relative.exp()
    margin = NEIGHBOURS // 2
    # 1 = exp(0)
    padded = F.pad(exponentials, (margin, margin, margin, margin), value=1.0)
    sums = NEIGHBOURS**2 * F.avg_pool2d(padded, NEIGHBOURS, stride=1)
    among_channels = relative / _divisor(relative.amax(dim=1, keepdim=True))
    gamma = (exponentials / sums * among_channels).amax(dim=1)
    return gamma / _divisor(gamma.sum(dim=(1, 2), keepdim=True))


def enlarged(scores: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Read (B, h, w) values of cells, bilinearly, at the pixels of an image: (B, H, W).

    Pixels outside of the outermost cells have the nearest value.
    """
    axes = [
        2
        * feature_cell_from_image(torch.arange(pixels, dtype=scores.dtype))
        / max(cells - 1, 1)
        - 1
        for pixels, cells in zip(image_size, scores.shape[1:], strict=True)
    ]
    y, x = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack([x, y], dim=-1).to(scores.device)
    return F.grid_sample(
        scores[:, None],
        grid.expand(len(scores), -1, -1, -1),
        padding_mode="border",
        align_corners=True,
    )[:, 0]


def corresponding_cells(
    aflow: Tensor, map_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Cells of two feature maps that show the same thing.

    Cells lie between pixels, for which no position is known; a cell moves with the
    pixel nearest to it, since a mean over pixels could be one of two surfaces.

    Args:
        aflow: (2, H, W) position (x, y) in image 2 of each pixel of image 1; NaN where
            unknown.
        map_size: (h, w) cells of either map.

    Returns:
        (C,) int64 cells of map 1, no two alike, and (C,) the cells of map 2 nearest to
        their true positions, both as indices into a map flattened row by row.
    """
    height, width = map_size
    rows, columns = torch.meshgrid(
        torch.arange(height, device=aflow.device),
        torch.arange(width, device=aflow.device),
        indexing="ij",
    )
    places = image_from_feature_cell(torch.stack([columns, rows]).to(aflow.dtype))
    nearest = torch.round(places)
    x, y = nearest.long()
    targets = torch.round(feature_cell_from_image(aflow[:, y, x] + places - nearest))
    last = targets.new_tensor([width - 1, height - 1])[:, None, None]
    # a comparison with NaN is false
    known = ((targets >= 0) & (targets <= last)).all(dim=0)
    columns2, rows2 = targets[:, known].long()
    return (rows * width + columns)[known], rows2 * width + columns2


def margin_loss(
    features1: Tensor,
    features2: Tensor,
    matches: tuple[Tensor, Tensor],
    weights: Tensor,
    config: D2NetTrainingConfig,
) -> MarginTerms | None:
    """The weighted mean of the margins of true matches (section 4.1).

    With p the distance of the descriptors of a match, and n that to the hardest wrong
    match of either of its cells in the other map, the margin is max(0, M + p^2 - n^2);
    wrong are the cells farther than K from the true one along some axis.

    Args:
        features1: (D, h, w).
        features2: (D, h, w).
        matches: (C,) cells of map 1 and (C,) their true matches in map 2, flattened.
        weights: (C,) of the matches, 0 or more.
        config: M and K.

    Returns:
        None where no match has both a weight and a wrong match to compare it with.
    """
    descriptors1, descriptors2 = (
        F.normalize(maps.flatten(1), dim=0).T for maps in (features1, features2)
    )
    cells1, cells2 = matches
    anchors1, anchors2 = descriptors1[cells1], descriptors2[cells2]
    size = (features1.shape[1], features1.shape[2])
    in2 = hardest_negatives(anchors1, descriptors2, cells2, size, config.safe_radius)
    in1 = hardest_negatives(anchors2, descriptors1, cells1, size, config.safe_radius)
    positive = _squared_distance(anchors1, anchors2)
    negative = torch.minimum(
        _where_found(in2, _squared_distance(anchors1, descriptors2[in2])),
        _where_found(in1, _squared_distance(anchors2, descriptors1[in1])),
    )
    comparable = (weights > 0) & torch.isfinite(negative)
    positive, negative = positive[comparable], negative[comparable]
    weights = weights[comparable]
    if not len(weights):
        return None
    margins = F.relu(config.margin + positive - negative)
    return MarginTerms(
        loss=(weights * margins).sum() / weights.sum(),
        positive_distance=_mean_root(positive),
        negative_distance=_mean_root(negative),
    )


@torch.no_grad()
def hardest_negatives(
    anchors: Tensor,
    descriptors: Tensor,
    true_cells: Tensor,
    map_size: tuple[int, int],
    safe_radius: int,
) -> Tensor:
    """The wrong match most like each descriptor.

    Args:
        anchors: (C, D), unit length.
        descriptors: (h * w, D) of the other map, unit length.
        true_cells: (C,) the right matches in the other map.
        map_size: (h, w) of the other map.
        safe_radius: cells within which, along both axes, no match is wrong.

    Returns:
        (C,) cells of the other map; -1 where all are too close to the right one.
    """
    height, width = map_size
    similarity = anchors @ descriptors.T
    rows = torch.arange(height, device=anchors.device)
    columns = torch.arange(width, device=anchors.device)
    true_rows = true_cells.div(width, rounding_mode="floor")[:, None]
    near_rows = (rows - true_rows).abs() <= safe_radius
    near_columns = (columns - true_cells[:, None] % width).abs() <= safe_radius
    near = near_rows[:, :, None] & near_columns[:, None, :]
    similarity.masked_fill_(near.flatten(1), -torch.inf)
    best, cells = similarity.max(dim=1)
    return torch.where(best > -torch.inf, cells, -1)


def _squared_distance(first: Tensor, second: Tensor) -> Tensor:
    """Of (C, D) unit vectors: (C,)."""
    return 2 - 2 * (first * second).sum(dim=1)


def _where_found(cells: Tensor, distances: Tensor) -> Tensor:
    """Distances to cells, infinite where there is no cell."""
    return torch.where(cells >= 0, distances, torch.inf)


def _mean_root(squares: Tensor) -> Tensor:
    """Mean of the distances of which these are the squares, rounding errors aside."""
    return squares.detach().clamp(min=0).sqrt().mean()


def _divisor(values: Tensor) -> Tensor:
    """The values, or 1 in place of those by which nothing can be divided."""
    return torch.where(values > FLOOR, values, 1.0)
