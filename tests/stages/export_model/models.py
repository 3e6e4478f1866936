"""Exported models, run by the runtimes that they are for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from r2d2_kapture.config.export_model import ModelForm
from tests.engines import library

Array = npt.NDArray[Any]
NAMES: dict[ModelForm, tuple[str, ...]] = {
    "dense": ("descriptors", "reliability", "repeatability"),
    "extractor": ("keypoints", "scales", "scores", "descriptors", "count"),
}


def run_model(path: Path, image: Array, form: ModelForm) -> dict[str, Array]:
    """The outputs of a model by name, in float32."""
    run = {".onnx": _run_onnx, ".xml": _run_openvino, ".pt": _run_torch}[path.suffix]
    return run(path, image, NAMES[form])


def _run_onnx(path: Path, image: Array, names: tuple[str, ...]) -> dict[str, Array]:
    runtime = library("onnxruntime")
    providers = ["CPUExecutionProvider"]
    session = runtime.InferenceSession(path, providers=providers)
    assert tuple(output.name for output in session.get_outputs()) == names
    return dict(zip(names, session.run(None, {"image": image})))


def _run_openvino(path: Path, image: Array, names: tuple[str, ...]) -> dict[str, Array]:
    openvino = library("openvino")
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    result = openvino.compile_model(path, "CPU", exact)({"image": image})
    return {name: np.array(result[name]) for name in names}


def _run_torch(path: Path, image: Array, names: tuple[str, ...]) -> dict[str, Array]:
    model = torch.jit.load(path)  # type: ignore[no-untyped-call]
    results = model(torch.from_numpy(image))
    return {name: value.numpy() for name, value in zip(names, results, strict=True)}
