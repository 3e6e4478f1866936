"""D2-Net on whole images: parity, tiles, scales, shrinking, limits, tiny images."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from scipy.spatial import cKDTree

from benchmarks import d2net_baseline
from r2d2_kapture.config.extract import D2NetConfig
from r2d2_kapture.coordinates import feature_cell_from_image
from r2d2_kapture.core.pyramid import shrink
from r2d2_kapture.core.runtime import Runtime
from r2d2_kapture.extractors.d2net import PATCH_SIDE, D2NetExtractor
from r2d2_kapture.models.d2net import D2Net
from r2d2_kapture.types import LocalFeatures
from tests.processors import PRECISIONS, needs_bf16
from tests.scenes.images import textured_image
from tests.scenes.networks import random_d2net, torch_threads

FIELDS = ("keypoints", "scales", "scores", "descriptors")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


def make_extractor(
    network: D2Net | None = None,
    *,
    precision: str = "fp32",
    tile_pixels: int = 1 << 20,
    **settings: Any,
) -> D2NetExtractor:
    runtime = Runtime(
        device=torch.device("cpu"),
        precision=precision,
        tile_pixels=tile_pixels,
        batch_size=1,
    )
    return D2NetExtractor(network or random_d2net(), D2NetConfig(**settings), runtime)


def assert_same_bytes(a: LocalFeatures, b: LocalFeatures) -> None:
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


def assert_close(found: LocalFeatures, expected: LocalFeatures) -> None:
    """Equal but for rounding; neighbours of nearly equal score may change places."""
    assert len(found) == len(expected)
    distance, index = cKDTree(found.keypoints_with_scale).query(
        expected.keypoints_with_scale
    )
    assert distance.max() < 0.02
    np.testing.assert_allclose(found.scores[index], expected.scores, rtol=1e-4)
    cosine = (found.descriptors[index] * expected.descriptors).sum(axis=1)
    assert cosine.min() > 0.9999


def assert_valid(features: LocalFeatures, image: npt.NDArray[np.uint8]) -> None:
    height, width = image.shape[:2]
    assert features.image_size == (width, height)
    for field in FIELDS:
        array = getattr(features, field)
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    if len(features):
        assert features.keypoints.min() >= 0
        assert (features.keypoints.max(axis=0) <= [width - 1, height - 1]).all()
        assert (np.diff(features.scores) <= 0).all()
        norms = np.linalg.norm(features.descriptors, axis=1)
        np.testing.assert_allclose(norms, 1, atol=1e-5)


def rebuilt_network() -> D2Net:
    """The weights of the references, as their README says."""
    network = D2Net()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            published = f"dense_feature_extraction.model.{name.removeprefix('ops.')}"
            seed = zlib.crc32(published.encode())
            noise = torch.randn(
                value.shape, generator=torch.Generator().manual_seed(seed)
            )
            size = (2 / (value.shape[1] * 9)) ** 0.5 if value.ndim == 4 else 0.05
            value.copy_(noise * size)
    return network.eval().requires_grad_(False)


def lies_between_cells(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Whether (N, 3) x, y, 1 / scale are half a cell from the next centre, where
    rounding decides if there is a keypoint; offsets of half a cell and more are none.
    """
    cells = feature_cell_from_image(rows[:, :2] / rows[:, 2:])
    between = np.abs(cells - np.floor(cells) - 0.5) < 1e-4
    return between.any(axis=1)


@pytest.mark.shared
@pytest.mark.parametrize(
    "stem",
    [
        "caffe_single",
        "torch_single",
        pytest.param("caffe_multiscale", marks=pytest.mark.slow),
        pytest.param("torch_multiscale", marks=pytest.mark.slow),
    ],
)
def test_published_outputs_are_reproduced(shared: Path, stem: str) -> None:
    folder = shared / "reference" / "d2net"
    with np.load(folder / f"{stem}.npz") as archive:
        reference = dict(archive)
    image = np.array(Image.open(folder / "input_384x288.png").convert("RGB"))
    preprocessing, scales = stem.split("_")
    features = make_extractor(
        rebuilt_network(),
        preprocessing=preprocessing,
        multiscale=scales == "multiscale",
    )(image)
    found = np.column_stack([features.keypoints, features.scales / PATCH_SIDE])
    distance, index = cKDTree(found).query(reference["keypoints"])
    same = distance < 0.01
    lacking = reference["keypoints"][~same]
    assert lies_between_cells(lacking).all()
    undecided = len(lacking) + lies_between_cells(found).sum()
    assert abs(len(features) - int(reference["total"])) <= undecided <= 2
    expected = reference["descriptors"].astype(np.float32)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    cosines = (features.descriptors[index] * expected).sum(axis=1)
    assert cosines[same].min() > 0.9999
    scores = features.scores[index]
    np.testing.assert_allclose(scores[same], reference["scores"][same], rtol=1e-4)


@pytest.mark.parametrize("multiscale", [False, True])
@pytest.mark.parametrize("size", [(96, 120), (97, 123)])
def test_features_are_those_of_the_plain_way(
    multiscale: bool, size: tuple[int, int]
) -> None:
    """The same equations written down densely, without tiles."""
    image = textured_image(*size)
    network = random_d2net()
    scales = (0.5, 1.0, 2.0) if multiscale else (1.0,)
    pixels = d2net_baseline.caffe_input(image.astype(np.float32))
    keypoints, scores, descriptors = d2net_baseline.extract(network, pixels, scales)
    expected = LocalFeatures(
        keypoints=keypoints[:, :2],
        scales=keypoints[:, 2] * np.float32(PATCH_SIDE),
        scores=scores,
        descriptors=descriptors,
        image_size=(size[1], size[0]),
    ).best_first()
    found = make_extractor(network, multiscale=multiscale)(image)
    assert_close(found, expected)
    assert len(found) > 40
    assert len(np.unique(found.scales)) == len(scales)


def test_a_scale_too_small_for_a_map_adds_nothing() -> None:
    """Half of 14 rows have none: scores are means over the two other scales."""
    image = textured_image(14, 200)
    network = random_d2net()
    found = make_extractor(network, multiscale=True)(image)
    pixels = d2net_baseline.caffe_input(image.astype(np.float32))
    keypoints, scores, _ = d2net_baseline.extract(network, pixels, (1.0, 2.0))
    assert set(found.scales / PATCH_SIDE) == set(keypoints[:, 2]) == {1.0, 0.5}
    np.testing.assert_allclose(found.scores, np.sort(scores)[::-1], rtol=1e-4)


@pytest.mark.parametrize("size", [(301, 203), (180, 322)])
@pytest.mark.parametrize("multiscale", [False, True])
def test_tiles_give_the_features_of_the_whole(
    size: tuple[int, int], multiscale: bool
) -> None:
    image = textured_image(*size)
    tiled = make_extractor(tile_pixels=200 * 200, multiscale=multiscale)
    assert len(list(tiled.backbone.tiles(*size, 8))) > 1
    assert_close(tiled(image), make_extractor(multiscale=multiscale)(image))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("preprocessing", ["caffe", "torch"])
def test_features_of_a_textured_image(precision: str, preprocessing: str) -> None:
    image = textured_image(133, 170)
    extract = make_extractor(precision=precision, preprocessing=preprocessing)
    features = extract(image)
    assert_valid(features, image)
    assert len(features) > 30
    assert set(features.scales) == {PATCH_SIDE}
    assert_same_bytes(extract(image), features)


def test_a_moved_image_moves_its_keypoints() -> None:
    """By whole cells, where the border is out of sight."""
    image = textured_image(300, 320)
    extract = make_extractor()
    found = extract(image).keypoints
    moved = extract(np.ascontiguousarray(image[8:, 12:])).keypoints + [12, 8]
    inner = [
        xy[(xy > 80).all(axis=1) & (xy < [320 - 60, 300 - 60]).all(axis=1)]
        for xy in (found, moved)
    ]
    assert len(inner[0]) == len(inner[1]) > 20
    assert cKDTree(inner[0]).query(inner[1])[0].max() < 0.01


def test_negative_features_count_without_relu() -> None:
    image = textured_image(96, 120)
    cut, whole = make_extractor(), make_extractor(relu=False)
    assert cut(image).descriptors.min() >= 0
    features = whole(image)
    assert_valid(features, image)
    assert features.descriptors.min() < -0.1


@pytest.mark.parametrize("multiscale", [False, True])
@pytest.mark.parametrize("tile_pixels", [200 * 200, 1 << 20])
def test_max_keypoints_keeps_exactly_the_best(
    multiscale: bool, tile_pixels: int
) -> None:
    image = textured_image(150, 210)
    settings: dict[str, Any] = {"multiscale": multiscale, "tile_pixels": tile_pixels}
    everything = make_extractor(**settings)(image)
    for count in (1, 17, 10**6):
        best = make_extractor(max_keypoints=count, **settings)(image)
        assert len(best) == min(count, len(everything))
        for field in FIELDS:
            np.testing.assert_array_equal(
                getattr(best, field), getattr(everything, field)[:count]
            )


@pytest.mark.parametrize(
    "size, limits, expected",
    [
        ((1600, 1200), {}, (1600, 1200)),  # as large as may be
        ((3000, 2000), {}, (1600, 1066)),  # by the longest side
        ((2000, 2000), {}, (1400, 1400)),  # by the sum
        ((3000, 2900), {}, (1423, 1376)),
        ((3000, 1), {}, (1600, 1)),
        ((3000, 2000), {"max_edge": 0}, (1680, 1120)),
        ((3000, 2000), {"max_edge": 0, "max_sum_edges": 0}, (3000, 2000)),
    ],
)
def test_images_are_shrunk_to_both_limits(
    size: tuple[int, int], limits: dict[str, int], expected: tuple[int, int]
) -> None:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    config = D2NetConfig(**limits)
    found = shrink(image, config.max_edge, config.max_sum_edges)
    assert found.shape == (expected[1], expected[0], 3)


def test_a_shrunk_pixel_weighs_those_around_it() -> None:
    """At half the size, by 1, 3, 3 and 1: a triangle as wide as two pixels each way."""
    row = np.repeat(np.array([0, 255], np.uint8), 4)
    image = np.repeat(row[None, :, None], 2, axis=0).repeat(3, axis=2)
    found = shrink(image, 4)
    expected = np.array([0, 255 * 1 / 8, 255 * 7 / 8, 255])
    assert found.shape == (1, 4, 3)
    np.testing.assert_allclose(found - expected[None, :, None], 0, atol=0.51)


@pytest.mark.parametrize(
    "size, shrunk", [((320, 240), (160, 120)), ((317, 131), (160, 66))]
)
def test_keypoints_of_a_shrunk_image_are_in_pixels_of_the_stored_one(
    size: tuple[int, int], shrunk: tuple[int, int]
) -> None:
    image = textured_image(size[1], size[0])
    config = D2NetConfig(max_edge=160)
    small = make_extractor()(shrink(image, config.max_edge, config.max_sum_edges))
    found = make_extractor(max_edge=160)(image)
    assert len(found) > 20
    assert small.image_size == shrunk
    assert found.image_size == size
    # borders stay on borders: at half the size the first pixel is a half of the first
    ratios = np.array(size) / shrunk
    expected = (small.keypoints + 0.5) * ratios - 0.5
    np.testing.assert_allclose(found.keypoints, expected, atol=1e-3)
    np.testing.assert_allclose(found.scales, PATCH_SIDE * size[0] / shrunk[0])
    np.testing.assert_array_equal(found.descriptors, small.descriptors)


TINY_SIZES = [(1, 1), (5, 5), (7, 100), (8, 8), (9, 40), (15, 15), (16, 17), (33, 31)]


@pytest.mark.parametrize("size", TINY_SIZES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("multiscale", [False, True])
def test_tiny_images_are_extracted(
    size: tuple[int, int], precision: str, multiscale: bool
) -> None:
    image = textured_image(*size)
    extract = make_extractor(precision=precision, multiscale=multiscale)
    features = extract(image)
    assert_valid(features, image)
    assert features.descriptors.shape[1] == 16
    maps = extract.confidence_maps(image)
    assert all(np.isfinite(values).all() for values in maps.values())


@pytest.mark.parametrize("value", [0, 255])
def test_blank_images_are_extracted(value: int) -> None:
    image = np.full((70, 91, 3), value, np.uint8)
    features = make_extractor(multiscale=True)(image)
    assert_valid(features, image)


@pytest.mark.parametrize("multiscale", [False, True])
def test_a_batch_gives_the_features_of_each(multiscale: bool) -> None:
    images = [textured_image(91, 100, seed) for seed in (1, 2, 3)]
    extract = make_extractor(multiscale=multiscale)
    batch = extract.extract_batch(images)
    assert len(batch) == 3
    for features, image in zip(batch, images):
        assert_close(features, extract(image))


@needs_bf16
def test_sixteen_bits_find_about_the_same() -> None:
    image = textured_image(200, 260)
    expected = make_extractor()(image)
    found = make_extractor(precision="bf16")(image)
    assert len(found) == pytest.approx(len(expected), rel=0.15)
    distance = cKDTree(found.keypoints).query(expected.keypoints)[0]
    assert (distance < 2).mean() > 0.8  # half a cell


@pytest.mark.parametrize("tile_pixels", [200 * 200, 1 << 20])
def test_confidence_maps(tile_pixels: int) -> None:
    maps = make_extractor(tile_pixels=tile_pixels).confidence_maps(
        textured_image(220, 250)
    )
    assert set(maps) == {"activation", "soft detection"}
    for values in maps.values():
        assert values.dtype == np.float32
        assert values.shape == (54, 61)
        assert values.min() >= 0 and values.max() == pytest.approx(1)
        assert values.std() > 0.05
    whole = make_extractor().confidence_maps(textured_image(220, 250))
    for name, values in maps.items():
        np.testing.assert_allclose(values, whole[name], atol=1e-3)
