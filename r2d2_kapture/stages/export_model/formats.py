"""A model in each format, as bytes."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from r2d2_kapture.config.export_model import ModelFormat, PixelType, Size
from r2d2_kapture.config.extras import import_extra
from r2d2_kapture.models.network import DenseNetwork
from r2d2_kapture.stages.export_model.onnx_forms import OnnxForms
from r2d2_kapture.stages.export_model.plan import ExtractorPlan
from r2d2_kapture.stages.export_model.torch_forms import (
    DenseMaps,
    ExportedExtractor,
    torchscript,
)

SUFFIXES: dict[ModelFormat, tuple[str, ...]] = {
    "onnx": (".onnx",),
    "openvino": (".bin", ".xml"),
    "torchscript": (".pt",),
}
"""Of the files of a format; a runtime is given the last one."""
SECTION = "r2d2_kapture"
"""Of OpenVINO's runtime information, where the metadata are."""
EXAMPLE = Size(width=96, height=64)
"""Of the image with which dense maps are traced."""


def to_bytes(
    network: DenseNetwork,
    form: Size | ExtractorPlan | None,
    to: ModelFormat,
    *,
    pixels: PixelType,
    half: bool,
    metadata: Mapping[str, str],
) -> dict[str, bytes]:
    """Write a model in a format.

    Args:
        network: in evaluation mode.
        form: the plan of a whole extractor; or for dense maps the only size of images,
            None for any.
        to: the format.
        pixels: type of the values of an image; a model of torch takes both.
        half: whether OpenVINO stores weights in float16.
        metadata: texts by name, for the model.

    Returns:
        Its files, by their suffixes.

    Raises:
        ConfigError: a package that the format needs is not installed.
    """
    if to == "torchscript":
        return {".pt": _torchscript(network, form, metadata)}
    forms = OnnxForms(
        network=network,
        pixels=pixels,
        metadata=metadata if to == "onnx" else {},
        asked_by=f"--to {to}",
    )
    data = (
        forms.whole_extractor(form)
        if isinstance(form, ExtractorPlan)
        else forms.dense_maps(form)
    )
    return {".onnx": data} if to == "onnx" else _openvino(data, metadata, half)


def _torchscript(
    network: DenseNetwork,
    form: Size | ExtractorPlan | None,
    metadata: Mapping[str, str],
) -> bytes:
    if isinstance(form, ExtractorPlan):
        image = torch.zeros(form.size.shape, dtype=torch.uint8)
        return torchscript(ExportedExtractor(network, form), image, metadata)
    images = torch.zeros((1, *EXAMPLE.shape), dtype=torch.uint8)
    return torchscript(DenseMaps(network), images, metadata)


def _openvino(data: bytes, metadata: Mapping[str, str], half: bool) -> dict[str, bytes]:
    openvino = import_extra("openvino", "openvino", "--to openvino")
    model = openvino.Core().read_model(data)
    for name, text in metadata.items():
        model.set_rt_info(text, [SECTION, name])
    for number, node in enumerate(model.get_ordered_ops()):
        # counted by process otherwise, so that the file would differ
        if re.fullmatch(rf"{node.get_type_name()}_\d+", node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}_{number}")
    with tempfile.TemporaryDirectory(prefix="r2d2_kapture_") as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=half)
        return {
            suffix: path.with_suffix(suffix).read_bytes()
            for suffix in SUFFIXES["openvino"]
        }
