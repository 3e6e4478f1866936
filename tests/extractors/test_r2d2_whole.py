"""All levels at once, as on a GPU, against one after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from r2d2_kapture.config.extract import PyramidConfig
from r2d2_kapture.extractors.r2d2 import R2D2Extractor
from r2d2_kapture.extractors.r2d2_whole import WholeLevels
from r2d2_kapture.types import LocalFeatures
from tests.extractors.test_r2d2 import make_extractor
from tests.scenes.images import textured_image
from tests.scenes.networks import NAMES

needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device"
)
needs_two = pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason="needs two CUDA devices"
)
DEVICES = [
    "cpu",
    pytest.param("cuda:0", marks=needs_cuda),
    pytest.param("cuda:1", marks=needs_two),  # not torch's current device
]


def whole_and_levels(
    name: str, device: str, **settings: Any
) -> tuple[R2D2Extractor, R2D2Extractor]:
    """Extractors of both ways, and nothing else that differs."""
    whole, levels = (
        make_extractor(name, device=torch.device(device), **settings) for _ in range(2)
    )
    whole._whole = WholeLevels(whole.engine, whole.settings)
    levels._whole = None
    return whole, levels


def assert_same(found: LocalFeatures, expected: LocalFeatures) -> None:
    assert len(expected) > 0
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=1e-4)
    np.testing.assert_array_equal(found.scales, expected.scales)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_allclose(found.descriptors, expected.descriptors, atol=1e-4)
    assert found.image_size == expected.image_size


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("top_k", [7, 300, 100_000])
@pytest.mark.parametrize("subpixel", [True, False])
def test_the_features_are_those_of_level_after_level(
    name: str, device: str, top_k: int, subpixel: bool
) -> None:
    whole, levels = whole_and_levels(name, device, top_k=top_k, subpixel=subpixel)
    images = [textured_image(91, 100, seed) for seed in (1, 2)]
    for found, expected in zip(
        whole.extract_batch(images), levels.extract_batch(images), strict=True
    ):
        assert_same(found, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_sizes_that_come_again_give_the_same(device: str) -> None:
    """The second batch of a size is captured as a graph on a GPU, the third replayed;
    more sizes than are kept come in between."""
    whole, levels = whole_and_levels(NAMES[0], device, top_k=200)
    for size in [(40, 50), (50, 40), *((30, 30 + i) for i in range(9)), (40, 50)]:
        for seed in range(3):
            image = textured_image(*size, seed)
            assert_same(whole(image), levels(image))


def test_masks_and_tiles_are_left_to_the_other_way(monkeypatch: Any) -> None:
    whole, levels = whole_and_levels(NAMES[0], "cpu", top_k=200)
    image = textured_image(60, 60)
    mask = np.zeros((60, 60), bool)
    mask[:, :30] = True
    assert_same(whole(image, mask), levels(image, mask))
    assert whole(image, mask).keypoints[:, 0].max() < 30
    tiled, levels = whole_and_levels(
        NAMES[0], "cpu", top_k=200, tile_pixels=128 * 128, pyramid=PyramidConfig()
    )
    assert tiled._whole is not None
    assert not tiled._whole.takes(tiled.upload([textured_image(200, 200)]))


def test_graphs_are_let_go_where_memory_is_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, levels = whole_and_levels(NAMES[0], "cpu", top_k=50)
    levels_at_once = whole._whole
    assert levels_at_once is not None
    graphs: dict[Any, Any] = levels_at_once._graphs
    calls = []

    def full(images: torch.Tensor) -> Any:
        calls.append(len(graphs))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(levels_at_once, "_find", full)
    graphs[1, 3, 8, 8] = object()
    image = textured_image(40, 50)
    assert_same(whole(image), levels(image))
    with pytest.raises(torch.OutOfMemoryError):  # nothing is left to let go
        whole(image)
    assert calls == [1, 0]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2)])
@pytest.mark.parametrize("name", NAMES)
def test_tiny_images(name: str, size: tuple[int, int]) -> None:
    whole, levels = whole_and_levels(name, "cpu", top_k=20, pyramid=PyramidConfig())
    found, expected = (extract(textured_image(*size)) for extract in (whole, levels))
    np.testing.assert_allclose(
        found.keypoints_with_scale, expected.keypoints_with_scale, atol=1e-4
    )


def test_an_image_without_keypoints() -> None:
    whole, _ = whole_and_levels(NAMES[0], "cpu", top_k=10, threshold=1.0)
    features = whole(textured_image(40, 40))
    assert features.descriptors.shape == (0, whole.descriptor_dim)
    assert features.keypoints.shape == (0, 2)
