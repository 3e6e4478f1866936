"""Hard detection against surfaces of known extrema, and against dense filters."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from r2d2_kapture.core.hard_detection import find_peaks, localize, strongest_patches


def bowl(
    centre: tuple[float, float],
    curvature: tuple[float, float, float],
    height: float = 100.0,
    size: tuple[int, int] = (12, 14),
) -> Tensor:
    """(h, w) quadratic surface with its maximum at ``centre``, row then column."""
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")
    dy, dx = rows - centre[0], columns - centre[1]
    down, along, across = curvature
    return height - (down * dy**2 + along * dx**2) / 2 - across * dy * dx


@pytest.mark.parametrize("centre", [(5.0, 6.0), (5.3, 6.2), (4.8, 6.3), (7.9, 3.1)])
@pytest.mark.parametrize("curvature", [(2, 2, 0), (2, 3, 0.5), (3, 1, -0.4)])
def test_the_extremum_of_a_quadratic_is_found_exactly(
    centre: tuple[float, float], curvature: tuple[float, float, float]
) -> None:
    features = torch.stack([torch.zeros(12, 14), bowl(centre, curvature)], dim=2)
    peaks, offsets = localize(find_peaks(features))
    assert len(peaks) == 1
    assert peaks.channels.tolist() == [1]
    place = torch.stack([peaks.rows, peaks.columns], dim=1) + offsets
    torch.testing.assert_close(place[0], torch.tensor(centre), atol=1e-3, rtol=0)
    assert float(peaks.values[0]) == pytest.approx(
        float(features[peaks.rows[0], peaks.columns[0], 1])
    )


@pytest.mark.parametrize(
    "curvature, found",
    [((1, 4.9, 0), True), ((1, 5.1, 0), False), ((0, 2, 0), False)],
)
def test_edges_are_those_five_times_as_sharp(
    curvature: tuple[float, float, float], found: bool
) -> None:
    peaks = find_peaks(bowl((5, 6), curvature)[:, :, None])
    at_the_centre = (peaks.rows == 5) & (peaks.columns == 6)
    assert bool(at_the_centre.any()) == found


def test_a_maximum_below_another_channel_is_none() -> None:
    small, large = bowl((5, 6), (2, 2, 0)), bowl((5, 7), (2, 2, 0), height=200)
    peaks = find_peaks(torch.stack([small, large], dim=2))
    inner = (peaks.rows == 5) & (peaks.columns < 10)
    assert peaks.channels[inner].tolist() == [1]
    assert peaks.columns[inner].tolist() == [7]


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (2, 2), (13, 17)])
@pytest.mark.parametrize("lowest", [0.0, None])
def test_peaks_are_those_of_dense_filters(
    size: tuple[int, int], lowest: float | None
) -> None:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(6, *size, generator=generator)
    if lowest is not None:
        features = features.clamp_min(lowest)
    mask, steps = dense_detections(features)
    channels, rows, columns = torch.nonzero(mask, as_tuple=True)
    expected = set(zip(rows.tolist(), columns.tolist(), channels.tolist()))
    peaks = find_peaks(features.permute(1, 2, 0))
    found = list(
        zip(peaks.rows.tolist(), peaks.columns.tolist(), peaks.channels.tolist())
    )
    assert set(found) == expected and len(found) == len(expected)
    assert found == sorted(found)
    if size == (13, 17):
        assert len(found) > 10
    near, offsets = localize(peaks)
    for row, column, channel, offset in zip(
        near.rows, near.columns, near.channels, offsets
    ):
        torch.testing.assert_close(offset, steps[:, channel, row, column])
    within = (steps.abs() < 0.5).all(dim=0) & mask
    assert len(near) == int(within.sum())


def dense_detections(features: Tensor) -> tuple[Tensor, Tensor]:
    """(D, h, w) mask and (2, D, h, w) steps, by filters over all channels."""

    def filtered(*rows: tuple[float, float, float]) -> Tensor:
        weight = torch.tensor(rows, dtype=torch.float32)[None, None]
        return F.conv2d(features[:, None], weight, padding=1)[:, 0]

    none = (0.0, 0.0, 0.0)
    dii = filtered((0, 1, 0), (0, -2, 0), (0, 1, 0))
    djj = filtered(none, (1, -2, 1), none)
    dij = filtered((0.25, 0, -0.25), none, (-0.25, 0, 0.25))
    di = filtered((0, -0.5, 0), none, (0, 0.5, 0))
    dj = filtered(none, (-0.5, 0, 0.5), none)
    hessian = torch.stack(
        [torch.stack([dii, dij], dim=-1), torch.stack([dij, djj], dim=-1)], dim=-2
    )
    determinant = torch.linalg.det(hessian)
    trace = dii + djj
    mask = features == features.amax(dim=0)
    mask &= features == F.max_pool2d(features[None], 3, 1, 1)[0]
    mask &= (determinant > 0) & (trace**2 <= 7.2 * determinant)
    safe = torch.where(mask[..., None, None], hessian, torch.eye(2))
    gradient = torch.stack([di, dj], dim=-1)[..., None]
    steps = -torch.linalg.solve(safe, gradient)[..., 0]
    return mask, steps.permute(3, 0, 1, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_maxima_that_tie_side_by_side_one_stays(dtype: torch.dtype) -> None:
    """As with values of 16 bits, here on a map of few different values."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randint(1, 4, (60, 60, 2), generator=generator).to(dtype)
    peaks = find_peaks(features)
    before = torch.stack([peaks.rows, peaks.columns, peaks.channels], dim=1)
    near, _ = localize(peaks)
    stays = torch.stack([near.rows, near.columns, near.channels], dim=1)

    def neighbours(cells: Tensor) -> int:
        apart = (cells[:, None, :2] - cells[None, :, :2]).abs().amax(dim=2)
        same = cells[:, None, 2] == cells[None, :, 2]
        return int(((apart == 1) & same).sum())

    assert neighbours(before) > 10
    assert neighbours(stays) == 0
    assert len(stays) > 50


def test_a_flat_map_has_no_peak() -> None:
    for value in (0.0, 3.0):
        assert len(find_peaks(torch.full((9, 9, 4), value))) <= 4  # its corners
    assert len(find_peaks(torch.zeros(9, 9, 4))) == 0
    peaks, offsets = localize(find_peaks(torch.zeros(9, 9, 4)))
    assert len(peaks) == 0 and offsets.shape == (0, 2)


def test_patches_are_of_the_strongest_channel() -> None:
    features = torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(0))
    patches = strongest_patches(features)
    assert patches.shape == (5, 7, 3, 3)
    torch.testing.assert_close(patches[:, :, 1, 1], features.amax(dim=2))
    channel = int(features[2, 3].argmax())
    torch.testing.assert_close(patches[2, 3], features[1:4, 2:5, channel])
    assert patches[0, :, 0].abs().max() == 0 and patches[:, -1, :, 2].abs().max() == 0
