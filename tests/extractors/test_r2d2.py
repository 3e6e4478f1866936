"""Features of whole images: order, limits, tiles, batches, tiny and blank images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from r2d2_kapture.config.extract import PyramidConfig, SelectionConfig
from r2d2_kapture.coordinates import ResizeMap
from r2d2_kapture.core.runtime import Runtime
from r2d2_kapture.extractors.r2d2 import R2D2Extractor
from r2d2_kapture.types import LocalFeatures
from tests.processors import PRECISIONS
from tests.scenes.images import textured_image
from tests.scenes.networks import NAMES, random_network, torch_threads


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than they give on small images."""
    with torch_threads(1):
        yield


FIELDS = ("keypoints", "scales", "scores", "descriptors")
needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device"
)


def make_extractor(
    name: str,
    *,
    pyramid: PyramidConfig = PyramidConfig(min_size=64),
    threshold: float = 0.0,
    top_k: int = 0,
    subpixel: bool = True,
    **runtime: Any,
) -> R2D2Extractor:
    values: dict[str, Any] = {
        "device": torch.device("cpu"),
        "precision": "fp32",
        "tile_pixels": 1 << 20,
        "batch_size": 1,
    }
    return R2D2Extractor(
        random_network(name),
        pyramid,
        SelectionConfig(
            reliability_thr=threshold,
            repeatability_thr=threshold,
            top_k=top_k,
            subpixel=subpixel,
        ),
        Runtime(**{**values, **runtime}),
    )


def assert_same_bytes(a: LocalFeatures, b: LocalFeatures) -> None:
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
    assert a.image_size == b.image_size


def assert_close(found: LocalFeatures, expected: LocalFeatures) -> None:
    """Equal but for rounding; neighbours of nearly equal score may change places."""
    assert len(found) == len(expected)
    assert found.image_size == expected.image_size
    orders = [
        np.lexsort((f.keypoints[:, 0].round(2), f.keypoints[:, 1].round(2), f.scales))
        for f in (found, expected)
    ]
    for field in FIELDS:
        np.testing.assert_allclose(
            getattr(found, field)[orders[0]],
            getattr(expected, field)[orders[1]],
            rtol=0,
            atol=2e-3,
        )


def assert_valid(features: LocalFeatures, image: npt.NDArray[np.uint8]) -> None:
    height, width = image.shape[:2]
    count = len(features)
    assert features.image_size == (width, height)
    assert features.keypoints.shape == (count, 2)
    assert features.scales.shape == features.scores.shape == (count,)
    assert features.descriptors.shape == (count, 16)
    for field in FIELDS:
        array = getattr(features, field)
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    if not count:
        return
    assert features.keypoints.min() >= -0.5
    assert (features.keypoints.max(axis=0) <= [width - 0.5, height - 0.5]).all()
    assert (np.diff(features.scores) <= 0).all()
    assert features.scores.min() >= 0 and features.scores.max() <= 1
    norms = np.linalg.norm(features.descriptors, axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("subpixel", [True, False])
def test_features_of_a_textured_image(
    name: str, precision: str, subpixel: bool
) -> None:
    image = textured_image(101, 131)
    extract = make_extractor(name, precision=precision, subpixel=subpixel)
    features = extract(image)
    assert_valid(features, image)
    assert len(features) > 100
    assert len(np.unique(features.scales)) == 5  # 131 to 66 pixels, 2^(-1/4) each
    assert_same_bytes(extract(image), features)


@pytest.mark.parametrize("name", NAMES)
def test_patch_sizes_are_32_pixels_of_their_level(name: str) -> None:
    pyramid = PyramidConfig(scale_f=2, min_size=60)
    features = make_extractor(name, pyramid=pyramid)(textured_image(240, 256))
    assert np.unique(features.scales).tolist() == [32, 64, 128]


@pytest.mark.parametrize("name", NAMES)
def test_whole_pixels_without_subpixel(name: str) -> None:
    one_level = PyramidConfig(min_size=90, max_size=96)
    image = textured_image(80, 96)
    coarse = make_extractor(name, pyramid=one_level, subpixel=False)(image)
    fine = make_extractor(name, pyramid=one_level)(image)
    np.testing.assert_array_equal(coarse.keypoints, coarse.keypoints.round())
    np.testing.assert_array_equal(coarse.scores, fine.scores)
    shift = np.abs(fine.keypoints - coarse.keypoints)
    assert 0 < shift.mean() and shift.max() <= 0.5


@pytest.mark.parametrize("name", NAMES)
def test_coordinates_follow_the_resize_map(name: str) -> None:
    """A single smaller level: both maps see the same maxima, shifted by a constant."""
    image = np.repeat(np.repeat(textured_image(40, 50), 4, axis=0), 4, axis=1)
    limits: dict[str, Any] = {"scale_f": 4, "min_size": 50, "max_size": 50}
    resize_maps: tuple[ResizeMap, ...] = ("corrected", "published")
    for resize in resize_maps:
        extract = make_extractor(
            name,
            pyramid=PyramidConfig(coordinates=resize, **limits),
            subpixel=False,
        )
        keypoints = extract(image).keypoints
        offset = 1.5 if resize == "corrected" else 0.0
        on_the_level = (keypoints - offset) / 4
        np.testing.assert_allclose(on_the_level, on_the_level.round(), atol=1e-4)
        assert on_the_level.min() >= 0 and on_the_level[:, 0].max() <= 49


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(180, 190), (181, 191), (90, 301), (301, 77)])
@pytest.mark.parametrize("subpixel", [True, False])
def test_tiles_give_the_features_of_the_whole(
    name: str, size: tuple[int, int], subpixel: bool
) -> None:
    image = textured_image(*size)
    tiled = make_extractor(name, tile_pixels=128 * 128, subpixel=subpixel)
    assert len(list(tiled.engine.backbone.tiles(*size, 2))) > 1
    expected = make_extractor(name, subpixel=subpixel)(image)
    assert_close(tiled(image), expected)
    assert len(expected) > 200


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tile_pixels", [128 * 128, 1 << 20])
def test_top_k_keeps_exactly_the_best_of_all(name: str, tile_pixels: int) -> None:
    image = textured_image(150, 160)
    everything = make_extractor(name, tile_pixels=tile_pixels)(image)
    for count in (1, 60, 10**6):
        best = make_extractor(name, tile_pixels=tile_pixels, top_k=count)(image)
        assert len(best) == min(count, len(everything))
        for field in FIELDS:
            np.testing.assert_allclose(
                getattr(best, field), getattr(everything, field)[:count], atol=1e-6
            )
    assert len(np.unique(everything.scales[:60])) > 1  # the best come from many levels


@pytest.mark.parametrize("name", NAMES)
def test_thresholds_only_remove(name: str) -> None:
    image = textured_image(100, 120)
    everything = make_extractor(name)(image)
    some = make_extractor(name, threshold=0.5)(image)
    assert 0 < len(some) < len(everything)
    assert some.scores.min() >= 0.25
    known = {tuple(row) for row in everything.keypoints_with_scale}
    assert {tuple(row) for row in some.keypoints_with_scale} <= known


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_gives_the_features_of_each(name: str) -> None:
    images = [textured_image(91, 100, seed) for seed in (1, 2, 3)]
    extract = make_extractor(name, top_k=300)
    batch = extract.extract_batch(images)
    assert len(batch) == 3
    for features, image in zip(batch, images):
        assert_close(features, extract(image))
    assert not np.array_equal(batch[0].scores, batch[1].scores)


@needs_cuda
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_batch_of_equal_images_on_cuda(name: str, precision: str) -> None:
    image = textured_image(200, 260)
    extract = make_extractor(
        name,
        device=torch.device("cuda"),
        batch_size=3,
        precision=precision,
        top_k=500,
        subpixel=False,
    )
    alone = extract(image)
    assert_valid(alone, image)
    known = {tuple(row) for row in alone.keypoints_with_scale.round(2)}
    for features in extract.extract_batch([image] * 3):
        assert len(features) == len(alone)
        rows = [tuple(row) for row in features.keypoints_with_scale.round(2)]
        assert np.mean([row in known for row in rows]) > 0.98
        np.testing.assert_allclose(features.scores, alone.scores, atol=0.01)


@needs_cuda
@pytest.mark.parametrize("name", NAMES)
def test_cuda_finds_the_features_of_the_cpu(name: str) -> None:
    image = textured_image(200, 260)
    settings: dict[str, Any] = {"top_k": 500, "subpixel": False}
    expected = make_extractor(name, **settings)(image)
    found = make_extractor(name, device=torch.device("cuda"), **settings)(image)
    known = {tuple(row) for row in expected.keypoints_with_scale.round(2)}
    rows = [tuple(row) for row in found.keypoints_with_scale.round(2)]
    assert np.mean([row in known for row in rows]) > 0.95


TINY_SIZES = [(1, 1), (1, 2), (2, 1), (2, 3), (3, 2), (1, 40), (40, 1), (20, 30)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", TINY_SIZES)
@pytest.mark.parametrize("subpixel", [True, False])
def test_tiny_images_are_extracted(
    name: str, size: tuple[int, int], subpixel: bool
) -> None:
    image = textured_image(*size)
    extract = make_extractor(name, pyramid=PyramidConfig(), subpixel=subpixel)
    features = extract(image)
    assert_valid(features, image)
    fits = min(size) >= extract.engine.backbone.pixel_stride
    assert (len(features) > 0) == fits  # with no thresholds a map has a maximum
    assert set(features.scales.tolist()) <= {32.0}  # at their own size


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_blank_images_are_extracted(name: str, value: int, threshold: float) -> None:
    image = np.full((70, 91, 3), value, np.uint8)
    features = make_extractor(name, threshold=threshold)(image)
    assert_valid(features, image)
    if threshold == 1:
        assert len(features) == 0


@pytest.mark.parametrize("name", NAMES)
def test_equal_scores_come_by_level_row_and_column(name: str) -> None:
    image = np.full((100, 121, 3), 200, np.uint8)
    features = make_extractor(name, subpixel=False)(image)
    x, y = features.keypoints.T
    places = list(zip(-features.scores, features.scales, y, x))
    assert len(np.unique(features.scores)) < len(features) / 2
    assert places == sorted(places)


@pytest.mark.parametrize("layout", ["flipped", "strided", "read-only", "Fortran"])
def test_the_layout_in_memory_does_not_matter(layout: str) -> None:
    plain = textured_image(64, 80)
    image = {
        "flipped": plain[:, ::-1].copy()[:, ::-1],
        "strided": np.repeat(plain, 2, axis=1)[:, ::2],
        "read-only": plain.copy(),
        "Fortran": np.asfortranarray(plain),
    }[layout]
    if layout == "read-only":
        image.flags.writeable = False
    extract = make_extractor("fast_r2d2")
    assert_same_bytes(extract(image), extract(plain))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(80, 96), (81, 97), (300, 90), *TINY_SIZES])
def test_confidence_maps_are_those_of_the_largest_level(
    name: str, size: tuple[int, int]
) -> None:
    pyramid = PyramidConfig(max_size=200, min_size=64)
    extract = make_extractor(name, pyramid=pyramid, tile_pixels=128 * 128)
    maps = extract.confidence_maps(textured_image(*size))
    assert set(maps) == {"reliability", "repeatability"}
    factor = 2**-0.75 if size == (300, 90) else 1
    expected = (round(size[0] * factor), round(size[1] * factor))
    for values in maps.values():
        assert values.shape == expected
        assert values.dtype == np.float32
        assert values.min() >= 0 and values.max() <= 1
    if min(size) >= 80:
        assert maps["repeatability"].std() > 0.01


def test_confidence_maps_of_tiles_are_those_of_the_whole() -> None:
    image = textured_image(181, 191)
    whole = make_extractor("fast_r2d2").confidence_maps(image)
    tiled = make_extractor("fast_r2d2", tile_pixels=128 * 128).confidence_maps(image)
    for name, values in whole.items():
        np.testing.assert_allclose(tiled[name], values, atol=1e-4)
        assert (values[:180, :190] > 0).all()
