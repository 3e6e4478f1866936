"""Exported models compute what the package computes, in their own runtimes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree

from r2d2_kapture.config.export_model import ModelFormat
from r2d2_kapture.config.extract import ExtractConfig, R2D2Config
from r2d2_kapture.core.pyramid import normalize_rgb
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.models.checkpoints import load_checkpoint, serialize_checkpoint
from r2d2_kapture.models.registry import Architecture
from r2d2_kapture.stages import export_model
from r2d2_kapture.stages.export_model.resampling import resizing_taps
from r2d2_kapture.types import LocalFeatures
from tests.scenes.images import textured_image
from tests.scenes.networks import NAMES, random_network, torch_threads
from tests.stages.export_model.models import Array, run_model

FORMATS: tuple[ModelFormat, ...] = ("onnx", "openvino", "torchscript")
ANYWHERE = {"reliability_thr": 0.0, "repeatability_thr": 0.0}
THREE_LEVELS = R2D2Config(min_size=40, scale_f=1.5, top_k=150, **ANYWHERE)
SETTINGS = {
    "three levels": THREE_LEVELS,
    "whole pixels, published": dataclasses.replace(
        THREE_LEVELS, max_size=70, coordinates="published", subpixel=False
    ),
    "fewer than wanted": dataclasses.replace(
        THREE_LEVELS, repeatability_thr=0.45, top_k=2000
    ),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.fixture(scope="module", params=NAMES)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint of random weights, of both networks."""
    name = request.param
    path: Path = tmp_path_factory.mktemp("weights") / f"{name}.safetensors"
    architecture = Architecture(name=name, width=1, descriptor_dim=16)
    network = random_network(name)
    path.write_bytes(
        serialize_checkpoint(network, architecture, training={}, license_name="MIT")
    )
    return path


def extracted(model: Path, settings: R2D2Config, image: Array) -> LocalFeatures:
    config = ExtractConfig(precision="fp32", gpu=-1, extractor=settings)
    return build_extractor(config, load_checkpoint(model))(image)


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_an_extractor_gives_the_features_of_the_package(
    model: Path, to: ModelFormat, settings: R2D2Config, tmp_path: Path
) -> None:
    pytest.importorskip("onnx", reason="needs the extra onnx")
    image = textured_image(75, 99)
    expected = extracted(model, settings, image)
    report = export_model.run(
        settings,
        model=str(model),
        to=to,
        form="extractor",
        size="99x75",
        output=tmp_path,
    )
    found = run_model(report.outputs[0], image, "extractor")
    count = int(found["count"][0])
    assert count == len(expected) >= 100
    assert {len(found[name]) for name in found if name != "count"} == {settings.top_k}
    assert all(not found[name][count:].any() for name in found if name != "count")
    assert (np.diff(found["scores"][:count]) <= 0).all()
    # keypoints of one place on two levels are told apart by their scales
    places = np.column_stack([found["keypoints"], found["scales"]])[:count]
    wanted = np.column_stack([expected.keypoints, expected.scales])
    distances, rows = cKDTree(places).query(wanted)
    near = distances < 0.01
    assert near.mean() >= 0.999
    scores = np.abs(found["scores"][rows] - expected.scores)[near]
    descriptors = np.abs(found["descriptors"][rows] - expected.descriptors)[near]
    assert scores.max() < 1e-4 and descriptors.max() < 1e-3


@pytest.mark.parametrize("to", FORMATS)
def test_dense_maps_are_those_of_the_network_at_any_size(
    model: Path, to: ModelFormat, tmp_path: Path
) -> None:
    pytest.importorskip("onnx", reason="needs the extra onnx")
    report = export_model.run(model=str(model), to=to, output=tmp_path)
    network = load_checkpoint(model).network
    for count, height, width in ((1, 40, 48), (2, 33, 61)):
        images = np.stack([textured_image(height, width, i) for i in range(count)])
        expected = network(normalize_rgb(torch.from_numpy(images)))
        found = run_model(report.outputs[0], images, "dense")
        for name, values in expected._asdict().items():
            np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-5)


@pytest.mark.parametrize("to", ("onnx", "openvino"))
def test_images_may_be_of_floats_and_dense_maps_of_one_size(
    model: Path, to: ModelFormat, tmp_path: Path
) -> None:
    pytest.importorskip("onnx", reason="needs the extra onnx")
    report = export_model.run(
        model=str(model), to=to, size="61x33", pixels="float32", output=tmp_path
    )
    image = textured_image(33, 61)[None]
    expected = load_checkpoint(model).network(normalize_rgb(torch.from_numpy(image)))
    found = run_model(report.outputs[0], image.astype(np.float32), "dense")
    np.testing.assert_allclose(
        found["descriptors"], expected.descriptors, rtol=0, atol=1e-5
    )


def test_every_tensor_of_an_extractor_has_a_known_size(
    model: Path, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    report = export_model.run(
        THREE_LEVELS,
        model=str(model),
        to="onnx",
        form="extractor",
        size="99x75",
        output=tmp_path,
    )
    inferred = onnx.shape_inference.infer_shapes(
        onnx.load(report.outputs[0]), strict_mode=True, data_prop=True
    )
    made = {name for node in inferred.graph.node for name in node.output}
    known = {
        item.name: item.type.tensor_type.shape.dim
        for item in (*inferred.graph.value_info, *inferred.graph.output)
    }
    assert made <= known.keys()
    assert all(side.HasField("dim_value") for sides in known.values() for side in sides)
    assert {node.domain for node in inferred.graph.node} == {""}


@pytest.mark.parametrize("antialias", (True, False))
@pytest.mark.parametrize("length, target", ((99, 70), (50, 50), (7, 1), (3, 2)))
def test_taps_resize_as_torch_does(length: int, target: int, antialias: bool) -> None:
    taps = resizing_taps(length, target, antialias=antialias)
    values = torch.rand(1, 1, 4, length, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(values, (4, target), mode="bilinear", antialias=antialias)[
        0, 0
    ]
    found = (values[0, 0].numpy()[:, taps.indices] * taps.weights).sum(axis=2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("to", ("onnx", "openvino"))
def test_int8_takes_half_the_space_and_finds_nearly_the_same(
    to: ModelFormat, tmp_path: Path
) -> None:
    pytest.importorskip("onnx", reason="needs the extra onnx")
    image = textured_image(96, 128)
    found, sizes = [], []
    for int8 in (False, True):
        report = export_model.run(
            R2D2Config(min_scale=1.0, min_size=0, top_k=60, **ANYWHERE),
            to=to,
            form="extractor",
            size="128x96",
            int8=int8,
            output=tmp_path / str(int8) / "model",
        )
        found.append(run_model(report.outputs[0], image, "extractor"))
        sizes.append(report.outputs[-1].stat().st_size)
    exact, near = found
    assert exact["count"] == near["count"] == 60 and sizes[1] < 0.5 * sizes[0]
    distances, rows = cKDTree(near["keypoints"]).query(exact["keypoints"])
    assert (distances < 1).mean() >= 0.9
    cosines = (near["descriptors"][rows] * exact["descriptors"]).sum(axis=1)
    assert cosines[distances < 1].min() > 0.99
