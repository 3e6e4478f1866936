"""What the processor at hand does with bfloat16."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

GAINS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
"""What torch says of instructions with which bfloat16 is faster than float32."""


@dataclass(frozen=True, kw_only=True)
class Processor:
    """What decides the precision of a network on the CPU.

    Attributes:
        name: its vector instructions, as ``AVX2``.
        runs_bf16: whether it runs convolutions in bfloat16 at all.
        has_bf16: whether it computes with bfloat16 itself, and so gains by it; others
            convert to float32 and back.
    """

    name: str
    runs_bf16: bool
    has_bf16: bool


def this_processor() -> Processor:
    """The processor at hand, asked anew at each call.

    Of processors that compute with bfloat16 only those of x86-64 were measured: on Arm,
    and with AVX-NE-CONVERT alone, ``has_bf16`` is False until somebody measures.
    """
    runs_bf16 = _bf16_convolution_runs()
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return Processor(
        name=torch.backends.cpu.get_cpu_capability()
        + (f" with ONEDNN_MAX_CPU_ISA={limit}" if limit else ""),
        runs_bf16=runs_bf16,
        has_bf16=runs_bf16 and any(getattr(torch.cpu, name, bool)() for name in GAINS),
    )


def onednn_fuses_activations() -> bool:
    """Whether torch was built with a convolution that takes its activation along."""
    return torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def _bf16_convolution_runs() -> bool:
    """Tried out: what it takes differs between processors, and releases of torch."""
    if not onednn_fuses_activations():
        return False
    image: Tensor = torch.zeros(1, 16, 32, 32, dtype=torch.bfloat16)
    weight: Tensor = torch.zeros(16, 16, 3, 3, dtype=torch.bfloat16)
    try:
        torch.ops.mkldnn._convolution_pointwise(
            image, weight, None, [1, 1], [1, 1], [1, 1], 1, "relu", [], ""
        )
    except RuntimeError:
        return False
    return True
