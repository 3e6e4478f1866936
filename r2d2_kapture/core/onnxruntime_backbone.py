"""Convolutional layers run by onnxruntime on the CPU, in float32 or int8."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from r2d2_kapture.core.backbone import Backbone
from r2d2_kapture.core.graph import folded_layers
from r2d2_kapture.core.onnx_layers import INPUT, OUTPUT, onnx_model
from r2d2_kapture.core.runtime import Runtime, import_engine
from r2d2_kapture.models.int8 import Quantization

ERRORS_ALONE = 3
"""Level of what onnxruntime logs."""


class OnnxruntimeBackbone(Backbone):
    """The layers by onnxruntime, with as many threads as torch; see Backbone.

    Raises:
        ConfigError: onnxruntime or onnx is not installed.
    """

    def __init__(
        self,
        ops: nn.Sequential,
        runtime: Runtime,
        quantization: Quantization | None = None,
    ) -> None:
        super().__init__(ops, runtime, quantization)
        library = import_engine("onnxruntime")
        if hasattr(library, "disable_telemetry_events"):
            library.disable_telemetry_events()
        model = onnx_model(
            folded_layers(ops), quantization=quantization, channels_last=True
        )
        options = library.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = ERRORS_ALONE
        # plans of memory are kept for every size of image seen
        options.enable_mem_pattern = False
        # threads that wait would take time from those that decode and write
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = library.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Run one pass; see Backbone."""
        inputs = {INPUT: images.contiguous().numpy()}
        (features,) = self._session.run([OUTPUT], inputs)
        return torch.from_numpy(features)
