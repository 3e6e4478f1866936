"""Convolutional layers run by OpenVINO on the CPU, in float32, bfloat16 or int8."""

from __future__ import annotations

from functools import cached_property
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from r2d2_kapture.core.backbone import Backbone
from r2d2_kapture.core.graph import folded_layers
from r2d2_kapture.core.onnx_layers import onnx_model
from r2d2_kapture.core.runtime import Runtime, import_engine
from r2d2_kapture.core.torch_backbone import NARROW_PIXELS
from r2d2_kapture.models.int8 import Quantization

PRECISIONS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""Of what is not quantized."""
KERNELS_KEPT = 256
"""Kernels made for sizes of images, of which each layer needs one a size."""


class OpenvinoBackbone(Backbone):
    """The layers by OpenVINO, with as many threads as torch; see Backbone.

    Sizes are known when it runs: nothing is compiled for each, kernels apart.

    Raises:
        ConfigError: openvino or onnx is not installed.
    """

    def __init__(
        self,
        ops: nn.Sequential,
        runtime: Runtime,
        quantization: Quantization | None = None,
    ) -> None:
        super().__init__(ops, runtime, quantization)
        library = import_engine("openvino")
        self._core = library.Core()
        self._model = self._core.read_model(
            onnx_model(
                folded_layers(ops), quantization=quantization
            ).SerializeToString()
        )
        self._request = self._compiled(runtime.precision)
        # a request has one input and one output
        self._lock = Lock()

    @cached_property
    def _narrow_request(self) -> Any:
        """In float32, for the same sizes as with torch: both are of oneDNN."""
        return self._compiled("fp32")

    def _compiled(self, precision: str) -> Any:
        settings = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
            # of its own accord it computes float32 in less
            "EXECUTION_MODE_HINT": (
                "PERFORMANCE" if precision == "bf16" else "ACCURACY"
            ),
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
            "CPU_RUNTIME_CACHE_CAPACITY": KERNELS_KEPT,
        }
        model = self._core.compile_model(self._model, "CPU", settings)
        return model.create_infer_request()

    def __call__(self, images: Tensor) -> Tensor:
        """Run one pass; see Backbone. Threads take turns."""
        with self._lock:
            return self._infer(images)

    def _infer(self, images: Tensor) -> Tensor:
        request, dtype = self._request, self.runtime.dtype
        if dtype != torch.float32 and min(images.shape[2:]) < NARROW_PIXELS:
            request, dtype = self._narrow_request, torch.float32
        request.infer(
            {0: images.contiguous().numpy()}, share_inputs=True, share_outputs=True
        )
        features = torch.from_numpy(request.get_output_tensor(0).data)
        # the next pass writes where this one did
        return features.permute(0, 2, 3, 1).to(
            dtype, memory_format=torch.contiguous_format, copy=True
        )
