"""Extractors are made by name."""

from __future__ import annotations

import pytest

from r2d2_kapture.config.extract import EngineConfig, ExtractConfig, SelectionConfig
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.extractors.registry import EXTRACTORS, build_extractor
from tests.networks import random_network, textured_image

ON_THE_CPU = ExtractConfig(
    engine=EngineConfig(gpu=-1, precision="fp32"), selection=SelectionConfig(top_k=5)
)


@pytest.mark.parametrize("name", EXTRACTORS)
def test_every_registered_extractor_is_made_and_runs(name: str) -> None:
    extractor = build_extractor(name, random_network("fast_r2d2"), ON_THE_CPU)
    assert extractor.runtime.device.type == "cpu"
    (features,) = extractor.extract_batch([textured_image(40, 50)])
    assert features.image_size == (50, 40)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="--extractor sift: expected one of .*r2d2"):
        build_extractor("sift", random_network("fast_r2d2"), ON_THE_CPU)
