"""What images have in common, by the points that they see."""

from __future__ import annotations

import numpy as np

from r2d2_kapture.stages.megadepth.scene import PointsSeen, compare_images


def test_scales_and_overlaps_of_known_points() -> None:
    near = PointsSeen(rows=np.array([0, 1, 2, 3]), normalised_depths=np.full(4, 0.5))
    far = PointsSeen(
        rows=np.array([2, 3, 5]), normalised_depths=np.array([1.0, 4.0, 9.0])
    )
    alone = PointsSeen(rows=np.array([7]), normalised_depths=np.array([2.0]))
    overlaps, ratios = compare_images([near, far, alone], 8)
    np.testing.assert_allclose(
        overlaps, [[1, 0.5, 0], [2 / 3, 1, 0], [0, 0, 1]], rtol=1e-6
    )
    # the geometric mean of 0.5 / 1 and 0.5 / 4
    np.testing.assert_allclose(ratios, [[1, 0.25, 0], [4, 1, 0], [0, 0, 1]], rtol=1e-6)
