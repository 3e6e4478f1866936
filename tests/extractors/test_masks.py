"""Masks keep keypoints off: the best of those that they allow are chosen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from r2d2_kapture.config.extract import D2NetConfig, PyramidConfig, SelectionConfig
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.core.runtime import Runtime
from r2d2_kapture.core.selection import unmasked
from r2d2_kapture.extractors.d2net import D2NetExtractor
from r2d2_kapture.extractors.r2d2 import R2D2Extractor
from r2d2_kapture.types import LocalFeatures
from tests.scenes.images import textured_image
from tests.scenes.networks import random_d2net, random_network, torch_threads

FIELDS = ("keypoints", "scales", "scores", "descriptors")
HEIGHT, WIDTH = 150, 190


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


def runtime(tile_pixels: int, batch_size: int = 1) -> Runtime:
    return Runtime(
        device=torch.device("cpu"),
        precision="fp32",
        tile_pixels=tile_pixels,
        batch_size=batch_size,
    )


def r2d2(top_k: int, tile_pixels: int = 1 << 20, **settings: Any) -> Extractor:
    subpixel = settings.pop("subpixel", True)
    return R2D2Extractor(
        random_network("fast_r2d2"),
        PyramidConfig(min_size=64, **settings),
        SelectionConfig(
            reliability_thr=0, repeatability_thr=0, top_k=top_k, subpixel=subpixel
        ),
        runtime(tile_pixels),
    )


def d2net(top_k: int, tile_pixels: int = 1 << 20, **settings: Any) -> Extractor:
    config = D2NetConfig(max_keypoints=top_k, **settings)
    return D2NetExtractor(random_d2net(), config, runtime(tile_pixels))


def random_mask() -> npt.NDArray[np.bool_]:
    """Single pixels and large areas, up to the border."""
    mask = np.random.default_rng(3).random((HEIGHT, WIDTH)) < 0.7
    mask[:, :40] = False
    mask[-30:] = False
    return mask


def allowed(
    features: LocalFeatures, mask: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Whether the pixel nearest to each keypoint is kept."""
    columns, rows = np.floor(features.keypoints.astype(np.float64) + 0.5).T.astype(int)
    kept: npt.NDArray[np.bool_] = mask[
        rows.clip(0, HEIGHT - 1), columns.clip(0, WIDTH - 1)
    ]
    return kept


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (r2d2, {}),
        (r2d2, {"subpixel": False, "coordinates": "published"}),
        (r2d2, {"tile_pixels": 128 * 128}),
        (r2d2, {"max_size": 100}),
        (d2net, {}),
        (d2net, {"multiscale": True}),
        (d2net, {"max_edge": 120, "tile_pixels": 128 * 128}),
    ],
)
def test_the_best_of_what_the_mask_allows(make: Any, settings: dict[str, Any]) -> None:
    image, mask = textured_image(HEIGHT, WIDTH), random_mask()
    everywhere = make(0, **settings)(image)
    kept = np.flatnonzero(allowed(everywhere, mask))
    assert 25 < len(kept) < 0.7 * len(everywhere)
    for top_k in (0, 20):
        masked = make(top_k, **settings)(image, mask)
        assert allowed(masked, mask).all()
        for field in FIELDS:
            expected = getattr(everywhere, field)[kept][: top_k or None]
            np.testing.assert_array_equal(getattr(masked, field), expected)


@pytest.mark.parametrize("make", [r2d2, d2net])
def test_black_and_white_masks_and_none(make: Any) -> None:
    image, extractor = textured_image(HEIGHT, WIDTH), make(0)
    white = np.ones((HEIGHT, WIDTH), np.bool_)
    unlimited, kept, none = (extractor(image, m) for m in (None, white, ~white))
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(kept, field), getattr(unlimited, field))
        assert getattr(none, field).shape[1:] == getattr(unlimited, field).shape[1:]
    assert (len(none), none.image_size) == (0, (WIDTH, HEIGHT))


@pytest.mark.parametrize("make", [r2d2, d2net])
def test_each_image_of_a_batch_has_its_own_mask(make: Any) -> None:
    images = [textured_image(HEIGHT, WIDTH, seed) for seed in range(3)]
    masks = [random_mask(), None, ~random_mask()]
    extractor = make(50)
    together = extractor.extract_uploaded(extractor.upload(images, masks))
    for features, image, mask in zip(together, images, masks):
        alone = extractor(image, mask)
        np.testing.assert_allclose(features.keypoints, alone.keypoints, atol=1e-3)


def test_a_point_belongs_to_the_pixel_that_holds_it() -> None:
    keep = torch.zeros(3, 4, dtype=torch.bool)
    keep[1, 2] = True
    points = {
        (2.0, 1.0): True,
        (1.5, 0.5): True,
        (2.4999, 1.4999): True,
        (2.5, 1.0): False,
        (2.0, 1.5): False,
        (1.4999, 1.0): False,
    }
    assert unmasked(torch.tensor(list(points)), keep).tolist() == [*points.values()]
    keep[:] = True
    outside = torch.tensor([[-0.9, 0.0], [3.6, 2.6]])
    assert unmasked(outside, keep).all()
