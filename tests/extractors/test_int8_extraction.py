"""--precision int8: features by both runtimes, and what is refused."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from r2d2_kapture.config.extract import (
    D2NetConfig,
    EngineConfig,
    EngineName,
    ExtractConfig,
    R2D2Config,
    SiftConfig,
)
from r2d2_kapture.core import runtime as runtime_module
from r2d2_kapture.core.dead_leaves import draw_leaves
from r2d2_kapture.core.runtime import resolve_runtime
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.evaluation.projection import transfer_errors
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.matching.matcher import match_features
from r2d2_kapture.matching.mutual_nn import MutualNearest
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.types import LocalFeatures
from tests.engines import library
from tests.scenes.networks import random_d2net, random_network

ENGINES: tuple[EngineName, ...] = ("openvino", "onnxruntime")
Pixels = npt.NDArray[np.uint8]


def extractor(engine: EngineName, precision: str) -> Callable[[Pixels], LocalFeatures]:
    if engine != "torch":
        library(engine)
        pytest.importorskip("onnx", reason="needs the extra onnx")
    config = ExtractConfig(
        engine=engine, precision=precision, gpu=-1, extractor=R2D2Config(top_k=500)
    )
    return build_extractor(config, load_checkpoint("fast_r2d2_v6"))


@functools.cache
def pair() -> tuple[Pixels, Pixels, npt.NDArray[np.float64]]:
    """A picture, the same turned by 20 degrees, and pixels of one to the other's."""
    (picture,) = draw_leaves(1, 256, seed=3)
    turned = np.asarray(Image.fromarray(picture).rotate(20, Image.Resampling.BICUBIC))
    cos, sin = math.cos(math.radians(20)), math.sin(math.radians(20))
    center = (picture.shape[0] - 1) / 2
    rotation = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    rotation[:2, 2] = center - rotation[:2, :2] @ [center, center]
    return picture, turned, rotation


@functools.cache
def features(engine: EngineName, precision: str) -> tuple[LocalFeatures, LocalFeatures]:
    extract = extractor(engine, precision)
    picture, turned, _ = pair()
    return extract(picture), extract(turned)


def accuracy(first: LocalFeatures, second: LocalFeatures) -> npt.NDArray[np.float64]:
    """Share of matches within 1 and 3 pixels."""
    found = match_features(MutualNearest(), first, second, images=("a", "b")).indices
    errors = transfer_errors(
        first.keypoints[found[:, 0]], second.keypoints[found[:, 1]], pair()[2]
    )
    assert len(errors) > 100
    return np.array([np.mean(errors <= pixels) for pixels in (1, 3)])


@pytest.mark.parametrize("engine", ENGINES)
def test_matches_are_as_accurate_as_in_float32(engine: EngineName) -> None:
    exact, int8 = features("torch", "fp32"), features(engine, "int8")
    expected = accuracy(*exact)
    assert expected[1] > 0.8
    np.testing.assert_allclose(accuracy(*int8), expected, rtol=0, atol=0.02)
    # a map of one with queries of the other
    np.testing.assert_allclose(accuracy(exact[0], int8[1]), expected, atol=0.02)


@pytest.mark.parametrize("engine", ENGINES)
def test_int8_is_not_float32_and_the_same_each_time(engine: EngineName) -> None:
    once = features(engine, "int8")[0]
    again = extractor(engine, "int8")(pair()[0])
    assert np.array_equal(once.keypoints, again.keypoints)
    assert np.array_equal(once.descriptors, again.descriptors)
    exact = features("torch", "fp32")[0]
    assert once.keypoints.shape == exact.keypoints.shape
    assert not np.array_equal(once.keypoints, exact.keypoints)


def test_both_runtimes_find_the_same_keypoints() -> None:
    one, other = (features(engine, "int8")[0] for engine in ENGINES)
    apart = np.abs(one.keypoints[:, None] - other.keypoints[None]).max(axis=2)
    assert np.mean(apart.min(axis=1) < 0.5) > 0.97


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("size", [(7, 10), (2, 90), (33, 5)])
def test_narrow_images_are_extracted(engine: EngineName, size: tuple[int, int]) -> None:
    picture = pair()[0][: size[0], : size[1]]
    found = extractor(engine, "int8")(np.ascontiguousarray(picture))
    assert found.image_size == size[::-1]
    assert np.isfinite(found.descriptors).all()


def refusal(config: ExtractConfig | EngineConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve_runtime(config)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_torch_and_gpus_are_refused() -> None:
    by_torch = refusal(EngineConfig(precision="int8", engine="torch"))
    assert "found --engine torch, expected openvino, onnxruntime or auto" in by_torch
    assert "found --gpu 0" in refusal(EngineConfig(precision="int8", gpu=0))


def test_without_a_runtime_int8_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtime_module, "_is_installed", lambda name: False)
    message = refusal(EngineConfig(precision="int8", gpu=-1))
    assert "pip install 'r2d2-kapture[openvino]'" in message


def test_auto_takes_openvino_and_needs_no_gpu() -> None:
    library("openvino")
    runtime = resolve_runtime(EngineConfig(precision="int8"))
    assert (runtime.engine, runtime.precision) == ("openvino", "int8")
    assert runtime.device.type == "cpu"


def test_other_extractors_are_refused() -> None:
    for settings, weights in (
        (D2NetConfig(), random_d2net()),
        (SiftConfig(), None),
    ):
        config = ExtractConfig(precision="int8", extractor=settings)
        with pytest.raises(ConfigError, match="--precision int8: found for") as caught:
            build_extractor(config, weights)
        assert "\n" not in str(caught.value)


def test_the_settings_are_those_of_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    library("openvino")
    monkeypatch.setattr(
        "r2d2_kapture.extractors.r2d2.int8_weights", lambda network: (None, ("kept",))
    )
    config = ExtractConfig(precision="int8", extractor=R2D2Config())
    made = build_extractor(config, random_network())
    assert made.runtime.precision == "int8" and made.warnings == ("kept",)
