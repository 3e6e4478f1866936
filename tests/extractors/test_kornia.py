"""ALIKED and DISK are kornia's own, with weights from a file."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from r2d2_kapture.config.extract import ExtractConfig
from r2d2_kapture.config.settings import make_settings
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.errors import CheckpointError, ConfigError
from r2d2_kapture.extractors.registry import build_extractor, load_weights
from tests.scenes.images import textured_image

feature = pytest.importorskip("kornia.feature")


def made(name: str, path: Path, **settings: Any) -> Extractor:
    values = {"extractor": name, "gpu": -1, **settings}
    _, weights = load_weights(name, path)
    return build_extractor(make_settings(ExtractConfig, values), weights)


def network_of(name: str) -> Any:
    """An untrained network: there are no weights of DISK here."""
    torch.manual_seed(0)
    network = feature.ALIKED("aliked-t16") if name == "aliked" else feature.DISK()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.fixture
def path_of(tmp_path: Path) -> Any:
    def path(name: str) -> Path:
        file = tmp_path / f"{name}.pth"
        state = network_of(name).state_dict()
        # as DISK's published files have it
        torch.save({"extractor": state} if name == "disk" else state, file)
        return file

    return path


@pytest.mark.parametrize("name", ["aliked", "disk"])
def test_features_are_those_of_kornia(name: str, path_of: Any) -> None:
    image = textured_image(64, 96)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        (expected,) = network_of(name)(pixels)
    scores = getattr(expected, "keypoint_scores", None)
    scores = expected.detection_scores if scores is None else scores
    found = made(name, path_of(name), max_keypoints=0)(image)
    order = np.argsort(-scores.numpy(), kind="stable")
    assert len(found) == len(order) > 5
    np.testing.assert_array_equal(found.keypoints, expected.keypoints.numpy()[order])
    np.testing.assert_array_equal(found.scores, scores.numpy()[order])
    descriptors = expected.descriptors.numpy()[order]
    np.testing.assert_array_equal(found.descriptors, descriptors)
    extractor = made(name, path_of(name))
    assert extractor.label == name and extractor.descriptor_dim == descriptors.shape[1]


@pytest.mark.parametrize("name", ["aliked", "disk"])
def test_large_images_are_shrunk_and_their_keypoints_enlarged(
    name: str, path_of: Any
) -> None:
    image = textured_image(128, 192)
    small = made(name, path_of(name), max_edge=96)(image)
    assert small.image_size == (192, 128)
    assert set(small.scales) == {64.0}
    assert small.keypoints.max() > 100
    # at half the size, pixel centres lie between those of the image
    halves = (small.keypoints + 0.5) / 2 - 0.5
    if name == "disk":  # whose keypoints are whole pixels
        np.testing.assert_allclose(halves, halves.round(), atol=1e-4)


@pytest.mark.parametrize("name", ["aliked", "disk"])
def test_other_files_are_refused_in_one_line(
    name: str, path_of: Any, tmp_path: Path
) -> None:
    other = path_of("disk" if name == "aliked" else "aliked")
    with pytest.raises(CheckpointError, match=f"found no weights of {name}, expected"):
        made(name, other)
    broken = tmp_path / "broken.pth"
    for content in ([1, 2], {"a": 1}, {}):
        torch.save(content, broken)
        with pytest.raises(CheckpointError, match="broken.pth: found no weights of"):
            made(name, broken)
    for data in (b"", b"not a file of torch", other.read_bytes()[:3000]):
        broken.write_bytes(data)
        with pytest.raises(
            CheckpointError, match=f"expected weights of {name}$"
        ) as caught:
            made(name, broken)
        assert re.fullmatch(r"[^\n]{,250}", str(caught.value).removeprefix(str(broken)))


@pytest.mark.parametrize("name", ["aliked", "disk"])
def test_without_kornia_the_extra_is_named(
    name: str, path_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = path_of(name)
    monkeypatch.setitem(sys.modules, "kornia.feature", None)
    with pytest.raises(ConfigError, match=rf"--extractor {name}: .*r2d2-kapture\[kor"):
        made(name, path)


@pytest.mark.shared
def test_published_weights_find_the_same_points_of_a_moved_image(shared: Path) -> None:
    extractor = made("aliked", shared / "data/weights/aliked-n16.pth")
    assert extractor.descriptor_dim == 128
    image = textured_image(120, 160)
    first, second = extractor(image[:, 32:]), extractor(image[:, :-32])
    similarity = first.descriptors @ second.descriptors.T
    best = similarity.argmax(axis=1)
    mutual = similarity.argmax(axis=0)[best] == np.arange(len(best))
    errors = second.keypoints[best] - first.keypoints - (32, 0)
    assert mutual.sum() > 20
    assert np.median(np.linalg.norm(errors[mutual], axis=1)) < 0.5
