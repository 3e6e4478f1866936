"""A model in each format, as bytes."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from r2d2_kapture.config.export_model import ModelFormat, ModelTarget, Size
from r2d2_kapture.config.extras import import_extra
from r2d2_kapture.models.int8 import Quantization
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


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportedModel:
    """A model to be written.

    Attributes:
        network: in evaluation mode.
        plan: of the whole extractor; None for dense maps.
        quantization: of its convolutions; None computes in float32.
        metadata: texts by name, for the file.
    """

    network: DenseNetwork
    plan: ExtractorPlan | None
    quantization: Quantization | None
    metadata: Mapping[str, str]

    def to_bytes(self, target: ModelTarget) -> dict[str, bytes]:
        """Its files in a format, by their suffixes.

        Raises:
            ConfigError: a package that the format needs is not installed.
        """
        if target.to == "torchscript":
            return {".pt": self._torchscript()}
        if target.to == "openvino":
            # first: its extra installs the package onnx too
            import_extra("openvino", "openvino", "--to openvino")
        forms = OnnxForms(
            network=self.network,
            quantization=self.quantization,
            pixels=target.pixels,
            metadata=self.metadata if target.to == "onnx" else {},
            asked_by=f"--to {target.to}",
        )
        data = (
            forms.dense_maps(target.size)
            if self.plan is None
            else forms.whole_extractor(self.plan)
        )
        if target.to == "onnx":
            return {".onnx": data}
        return _openvino(data, self.metadata, target.half)

    def _torchscript(self) -> bytes:
        if self.plan is None:
            image = torch.zeros((1, *EXAMPLE.shape), dtype=torch.uint8)
            return torchscript(DenseMaps(self.network), image, self.metadata)
        image = torch.zeros(self.plan.size.shape, dtype=torch.uint8)
        extractor = ExportedExtractor(self.network, self.plan)
        return torchscript(extractor, image, self.metadata)


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
