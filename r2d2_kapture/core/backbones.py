"""The one place where a backbone is chosen by its engine."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from r2d2_kapture.core.backbone import Backbone
from r2d2_kapture.core.onnxruntime_backbone import OnnxruntimeBackbone
from r2d2_kapture.core.openvino_backbone import OpenvinoBackbone
from r2d2_kapture.core.runtime import Runtime
from r2d2_kapture.core.torch_backbone import TorchBackbone
from r2d2_kapture.models.int8 import Quantization

BACKBONES: Mapping[str, type[Backbone]] = {
    "torch": TorchBackbone,
    "openvino": OpenvinoBackbone,
    "onnxruntime": OnnxruntimeBackbone,
}


def open_backbone(
    ops: nn.Sequential, runtime: Runtime, quantization: Quantization | None = None
) -> Backbone:
    """Make the layers of a network ready to run.

    Args:
        ops: see Backbone.
        runtime: from resolve_runtime; its engine decides.
        quantization: see Backbone.

    Raises:
        ConfigError: the engine is not installed.
    """
    return BACKBONES[runtime.engine](ops, runtime, quantization)
