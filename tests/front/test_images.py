"""Extraction of single images from Python: what is taken, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import r2d2_kapture as rk
from r2d2_kapture.errors import CheckpointError, ConfigError, ImageError
from r2d2_kapture.front.images import gpu_index

SMALL = {"min_size": 0, "reliability_thr": 0.0, "repeatability_thr": 0.0, "top_k": 40}


@pytest.fixture(scope="module")
def extractor(checkpoint_path: Path) -> rk.ImageExtractor:
    return rk.load_extractor(checkpoint_path, device="cpu", precision="fp32", **SMALL)


@pytest.fixture
def pixels() -> Any:
    return np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


def test_path_picture_and_array_give_the_same_features(
    extractor: rk.ImageExtractor, pixels: Any, tmp_path: Path
) -> None:
    path = tmp_path / "é a.png"
    Image.fromarray(pixels).save(path)
    expected = extractor(pixels)
    assert len(expected) == 40
    for image in (path, str(path), Image.open(path), Image.fromarray(pixels)):
        found = extractor(image)
        np.testing.assert_array_equal(found.keypoints, expected.keypoints)
        np.testing.assert_array_equal(found.descriptors, expected.descriptors)
    assert expected.image_size == (64, 48)


def test_grey_arrays_and_sideways_jpegs_keep_their_pixels(
    extractor: rk.ImageExtractor, pixels: Any, tmp_path: Path
) -> None:
    grey = pixels[:, :, 0]
    three = np.repeat(grey[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(
        extractor(grey).descriptors, extractor(three).descriptors
    )
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    for image in (tmp_path / "a.jpg", Image.open(tmp_path / "a.jpg")):
        assert extractor(image).image_size == (64, 48)


@pytest.mark.parametrize(
    "image, found",
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        ("no such file.jpg", "no such file"),
        (Image.new("F", (4, 4)), "floating point"),
    ],
)
def test_what_is_no_image_is_refused(
    extractor: rk.ImageExtractor, image: Any, found: str
) -> None:
    with pytest.raises(ImageError, match=found):
        extractor(image)


def test_settings_win_over_the_preset_and_numbers_of_numpy_are_taken(
    checkpoint_path: Path,
) -> None:
    extractor = rk.load_extractor(checkpoint_path, preset="fast", top_k=7)
    assert extractor.settings["top_k"] == 7
    assert extractor.settings["max_size"] == 768
    extractor = rk.load_extractor(
        checkpoint_path, top_k=np.int64(7), reliability_thr=np.float32(0.5)
    )
    kinds = {type(extractor.settings[name]) for name in ("top_k", "reliability_thr")}
    assert kinds == {int, float}


@pytest.mark.parametrize(
    "settings, hint",
    [
        ({"topk": 3}, "did you mean top_k"),
        ({"top_k": -1}, "expected 0"),
        ({"multiscale": True}, "d2net"),
        ({"device": "tpu"}, "expected 'cpu'"),
        ({"preset": "fsat"}, "did you mean fast"),
        ({"top_k": 2.5}, "top_k=2.5: expected a whole number"),
        ({"top_k": "many"}, "top_k='many': expected a whole number"),
        ({"reliability_thr": "high"}, "reliability_thr='high': expected a number"),
    ],
)
def test_settings_that_cannot_be(
    checkpoint_path: Path, settings: dict[str, Any], hint: str
) -> None:
    with pytest.raises(ConfigError, match=hint):
        rk.load_extractor(checkpoint_path, **settings)


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(CheckpointError, match="bundled model"):
        rk.load_extractor("r2d2_v99")


@pytest.mark.parametrize("device, index", [("cpu", -1), ("cuda", 0), ("cuda:3", 3)])
def test_devices_by_the_names_of_torch(device: str, index: int) -> None:
    assert gpu_index(torch.device(device)) == index
    assert gpu_index(device) == index


def test_features_to_a_file_and_to_tensors(
    extractor: rk.ImageExtractor, pixels: Any, tmp_path: Path
) -> None:
    features = extractor(pixels)
    features.save(tmp_path / "a.npz")
    read = rk.LocalFeatures.load(str(tmp_path / "a.npz"))
    for name, tensor in read.to_torch().items():
        expected = torch.as_tensor(getattr(features, name))
        assert torch.equal(tensor, expected), name
    assert read.to_torch()["descriptors"].dtype == torch.float32


def test_another_extractor_in_every_function_that_extracts(
    kapture_root: Path, checkpoint_path: Path, tmp_path: Path
) -> None:
    images = sorted((kapture_root / "sensors/records_data").glob("*.png"))[:2]
    sift: dict[str, Any] = {"extractor": "sift", "max_keypoints": 5}
    extractor = rk.load_extractor(**sift, device="cpu")
    features = [extractor(image) for image in images]
    assert repr(extractor).startswith("ImageExtractor('sift', {'root': True")
    assert extractor.checkpoint is None
    assert features[0].descriptors.dtype == np.uint8
    matches = rk.match(*features)
    assert 0 < len(matches) and (matches.scores <= 1 + 1e-6).all()
    features[0].save(tmp_path / "a.sift")
    loaded = rk.LocalFeatures.load(tmp_path / "a.sift")
    np.testing.assert_allclose(np.linalg.norm(loaded.descriptors, axis=1), 1, atol=1e-5)
    quiet: dict[str, Any] = {"progress": False}
    made = rk.extract_images(images, output_dir=tmp_path / "files", **sift, **quiet)
    assert made.details["keypoints"] == 10
    output = tmp_path / "features"
    made = rk.extract(kapture_root=kapture_root, output=output, **sift, **quiet)
    assert made.done == 5
    viewed = rk.view_pair(*images, output_dir=tmp_path / "pictures", **sift)
    assert viewed.outputs
    with pytest.raises(ConfigError, match="top_k: found for sift, expected only for"):
        rk.load_extractor(extractor="sift", top_k=5)
    with pytest.raises(ConfigError, match="max_keypoints: found for r2d2, expected o"):
        rk.load_extractor(checkpoint_path, max_keypoints=5)
    with pytest.raises(ConfigError, match="features of other weights than 'tiny'"):
        rk.Localizer("no map", rk.load_extractor(checkpoint_path), features=output)
