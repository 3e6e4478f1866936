"""Extractors are made by name, or for the network at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r2d2_kapture.config.extract import D2NetConfig, ExtractConfig, R2D2Config
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.extractors.registry import build_extractor, load_weights
from r2d2_kapture.models.checkpoints import load_checkpoint, serialize_checkpoint
from r2d2_kapture.models.network import FeatureNetwork
from r2d2_kapture.models.registry import Architecture
from tests.scenes.images import textured_image
from tests.scenes.networks import random_d2net, random_network

NETWORKS = {"r2d2": lambda: random_network("fast_r2d2"), "d2net": random_d2net}
SETTINGS = {"r2d2": R2D2Config(top_k=5), "d2net": D2NetConfig(max_keypoints=5)}


def on_the_cpu(settings: Any) -> ExtractConfig:
    return ExtractConfig(extractor=settings, gpu=-1, precision="fp32")


def network_of(name: str) -> FeatureNetwork:
    return NETWORKS[name]()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_extractor_of_every_network_is_made_and_runs(name: str) -> None:
    extractor = build_extractor(on_the_cpu(SETTINGS[name]), network_of(name))
    assert extractor.name == name
    assert extractor.runtime.device.type == "cpu"
    image = textured_image(60, 70)
    (features,) = extractor.extract_batch([image])
    assert features.image_size == (70, 60)
    assert 0 < len(features) <= 5
    assert 5 in extractor.provenance.values()
    for values in extractor.confidence_maps(image).values():
        assert values.ndim == 2 and 0 <= values.min() <= values.max() <= 1


@pytest.mark.parametrize("name", NETWORKS)
def test_the_extractor_of_another_network_is_refused(name: str) -> None:
    (other,) = set(NETWORKS) - {name}
    with pytest.raises(ConfigError, match=f"expected --extractor {other}") as caught:
        build_extractor(on_the_cpu(SETTINGS[name]), network_of(other))
    assert len(str(caught.value).splitlines()) == 1


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="--extractor sirf: .* expected one of r2d2"):
        load_weights("sirf")


@pytest.mark.parametrize(
    ("known", "asked", "expected"),
    [
        (None, None, "caffe"),
        (None, "torch", "torch"),
        ("torch", None, "torch"),
        ("torch", "torch", "torch"),
        ("caffe", "caffe", "caffe"),
        ("caffe", "torch", None),
        ("torch", "caffe", None),
    ],
)
def test_weights_are_given_the_preprocessing_they_were_trained_with(
    tmp_path: Path, known: str | None, asked: str | None, expected: str | None
) -> None:
    architecture = Architecture(name="d2net", width=2, descriptor_dim=16)
    path = tmp_path / "d2.safetensors"
    path.write_bytes(
        serialize_checkpoint(
            random_d2net(),
            architecture,
            training={"preprocessing": known} if known else {},
            license_name="CC0",
        )
    )
    network = load_checkpoint(path).network

    def make(network: FeatureNetwork, preprocessing: str | None) -> Extractor:
        settings = D2NetConfig(preprocessing=preprocessing)  # type: ignore[arg-type]
        return build_extractor(on_the_cpu(settings), network)

    if expected is None:
        with pytest.raises(ConfigError, match=f"trained with {known}; give") as caught:
            make(network, asked)
        assert "\n" not in str(caught.value)
        return
    found, explicit = make(network, asked), make(random_d2net(), expected)
    assert found.settings == explicit.settings
    assert found.provenance["preprocessing"] == expected
    image = textured_image(60, 70)
    features = [extractor(image) for extractor in (found, explicit)]
    assert len(features[0]) > 5
    for name in ("keypoints", "descriptors", "scores"):
        np.testing.assert_array_equal(*(getattr(item, name) for item in features))
