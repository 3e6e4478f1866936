"""Every engine finds the keypoints that torch finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import r2d2_kapture as rk
from r2d2_kapture.config.extract import (
    D2NetConfig,
    ExtractConfig,
    R2D2Config,
    SiftConfig,
)
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.extractors.registry import build_extractor, load_weights
from r2d2_kapture.stages.extract.stage import make_manifest
from tests.core.test_graph import network
from tests.engines import OTHER_ENGINES
from tests.scenes.images import textured_image


def extractor(model: str, engine: str, **runtime: object) -> Extractor:
    """Of a bundled model, or of a small D2-Net."""
    settings = D2NetConfig(multiscale=True) if model == "d2net" else R2D2Config()
    config = ExtractConfig(
        extractor=settings,
        gpu=-1,
        precision="fp32",
        engine=engine,  # type: ignore[arg-type]
        **runtime,  # type: ignore[arg-type]
    )
    weights = network("d2net") if model == "d2net" else load_weights(model=model)[1]
    return build_extractor(config, weights)


@pytest.mark.parametrize("engine", OTHER_ENGINES)
@pytest.mark.parametrize("model", ["fast_r2d2_v6", "r2d2_v2", "d2net"])
@pytest.mark.parametrize("tiled", [False, True])
def test_the_same_keypoints(model: str, engine: str, tiled: bool) -> None:
    side = 200 if model == "d2net" else 128
    tiles = {"tile_pixels": side**2} if tiled else {}
    image = textured_image(150, 171)
    found = extractor(model, engine, **tiles)(image)
    expected = extractor(model, "torch", **tiles)(image)
    assert len(found) == len(expected) > 50
    orders = [
        np.lexsort((f.keypoints[:, 0].round(1), f.keypoints[:, 1].round(1), f.scales))
        for f in (found, expected)
    ]
    for field, tolerance in (
        ("keypoints", 0.01),
        ("scales", 0),
        ("scores", 1e-4 * float(expected.scores.max())),
        ("descriptors", 1e-4),
    ):
        np.testing.assert_allclose(
            getattr(found, field)[orders[0]],
            getattr(expected, field)[orders[1]],
            rtol=0,
            atol=tolerance,
        )


def test_an_extractor_without_a_network_of_the_package_refuses_engines() -> None:
    settings = SiftConfig()
    for engine in ("openvino", "onnxruntime"):
        config = ExtractConfig(
            extractor=settings, gpu=-1, engine=engine  # type: ignore[arg-type]
        )
        with pytest.raises(ConfigError, match=f"--engine {engine}: found for .* sift"):
            build_extractor(config)
    assert build_extractor(ExtractConfig(extractor=settings)).runtime.engine == "torch"


@pytest.mark.parametrize("engine", OTHER_ENGINES)
def test_what_one_engine_began_another_continues(engine: str) -> None:
    ours, theirs = (
        make_manifest(extractor("fast_r2d2_v6", each)) for each in ("torch", engine)
    )
    assert ours.differences(theirs) == []
    assert ours.versions["engine"] == f"torch {ours.versions['torch'].split('-')[0]}"
    assert theirs.versions["engine"].startswith(f"{engine} ")


@pytest.mark.parametrize("engine", OTHER_ENGINES)
def test_python_calls_take_an_engine(checkpoint_path: Path, engine: str) -> None:
    found = rk.load_extractor(checkpoint_path, engine=engine, precision="fp32")
    assert found.extractor.runtime.engine == engine
