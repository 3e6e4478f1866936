"""Extractors are made by name, or for the network at hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.config.extract import (
    AUTO,
    D2NetConfig,
    EngineConfig,
    ExtractConfig,
    SelectionConfig,
)
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.extractors.registry import EXTRACTORS, Extractor, build_extractor
from r2d2_kapture.models.checkpoints import load_checkpoint, serialize_checkpoint
from r2d2_kapture.models.network import FeatureNetwork
from r2d2_kapture.models.registry import Architecture
from tests.scenes.images import textured_image
from tests.scenes.networks import random_d2net, random_network

ON_THE_CPU = ExtractConfig(
    engine=EngineConfig(gpu=-1, precision="fp32"),
    selection=SelectionConfig(top_k=5),
    d2net=D2NetConfig(max_keypoints=5),
)
NETWORKS = {"r2d2": lambda: random_network("fast_r2d2"), "d2net": random_d2net}


def network_of(name: str) -> FeatureNetwork:
    return NETWORKS[name]()


@pytest.mark.parametrize("name", EXTRACTORS)
@pytest.mark.parametrize("asked", ["by name", AUTO])
def test_every_registered_extractor_is_made_and_runs(name: str, asked: str) -> None:
    extractor = build_extractor(
        name if asked == "by name" else AUTO, network_of(name), ON_THE_CPU
    )
    assert extractor.name == name
    assert extractor.runtime.device.type == "cpu"
    image = textured_image(60, 70)
    (features,) = extractor.extract_batch([image])
    assert features.image_size == (70, 60)
    assert 0 < len(features) <= 5
    assert 5 in extractor.settings.values()
    for values in extractor.confidence_maps(image).values():
        assert values.ndim == 2 and 0 <= values.min() <= values.max() <= 1


@pytest.mark.parametrize("name", EXTRACTORS)
def test_the_extractor_of_another_network_is_refused(name: str) -> None:
    (other,) = set(EXTRACTORS) - {name}
    with pytest.raises(ConfigError, match=f"expected --extractor {other}") as caught:
        build_extractor(name, network_of(other), ON_THE_CPU)
    assert len(str(caught.value).splitlines()) == 1


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="--extractor sift: expected one of .*r2d2"):
        build_extractor("sift", random_network("fast_r2d2"), ON_THE_CPU)


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
        config = dataclasses.replace(ON_THE_CPU, d2net=settings)
        return build_extractor(AUTO, network, config)

    if expected is None:
        with pytest.raises(ConfigError, match=f"trained with {known}; give") as caught:
            make(network, asked)
        assert "\n" not in str(caught.value)
        return
    found, explicit = make(network, asked), make(random_d2net(), expected)
    assert found.settings == explicit.settings
    assert found.settings["preprocessing"] == expected
    image = textured_image(60, 70)
    features = [extractor(image) for extractor in (found, explicit)]
    assert len(features[0]) > 5
    for name in ("keypoints", "descriptors", "scores"):
        np.testing.assert_array_equal(*(getattr(item, name) for item in features))
