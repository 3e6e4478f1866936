"""Where and in which arithmetic a network runs: settings of inference, resolved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from r2d2_kapture.config.extract import EngineConfig, EngineName, Precision
from r2d2_kapture.config.extras import import_extra
from r2d2_kapture.core import processor
from r2d2_kapture.errors import ConfigError

EXTRAS = {"openvino": "openvino", "onnxruntime": "onnx"}
"""Engines beside torch, and the extras of setup.cfg that install them."""
FASTER_THAN_TORCH = {
    "fp32": ("onnxruntime", "openvino"),
    "int8": ("openvino", "onnxruntime"),
}
"""Engines by precision, the fastest on a CPU first."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """The resolved counterpart of EngineConfig: what this machine will do.

    Attributes:
        device: where the network runs.
        engine: ``torch``, ``openvino`` or ``onnxruntime``.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        tile_pixels: largest number of pixels of one pass.
        batch_size: images of equal size that share one pass.
    """

    device: torch.device
    precision: str
    tile_pixels: int
    batch_size: int
    engine: str = "torch"

    @property
    def dtype(self) -> torch.dtype:
        """Of features."""
        return {
            "fp32": torch.float32,
            "bf16": torch.bfloat16,
            "fp16": torch.float16,
            "int8": torch.float32,  # of what goes in and comes out
        }[self.precision]

    @property
    def engine_version(self) -> str:
        """The engine with its version, as in ``onnxruntime 1.32.0``."""
        module = torch if self.engine == "torch" else import_engine(self.engine)
        return f"{self.engine} {str(module.__version__).partition('-')[0]}"


def resolve_runtime(config: EngineConfig) -> Runtime:
    """Choose device, precision, engine and tile size for this machine.

    ``auto`` precision is bfloat16 where the processor or the GPU computes with it, else
    float32. The mean matching accuracy of R2D2 is within 0.005 of that in float32; of
    D2-Net it was measured with random weights only (docs/accuracy.md).

    The engines agree to 1e-4 in float32, and ``auto`` is the first that is installed in
    the order of speed (docs/choosing.md). In bfloat16 none is faster than torch.

    Raises:
        ConfigError: the GPU or the engine asked for is not there, or the precision
            asked for does not run on them.
    """
    device = _resolve_device(config)
    engine = "torch"
    if device.type == "cpu":
        precision = _precision_on_cpu(config.precision, config.engine)
        engine = _engine_on_cpu(config.engine, precision)
    elif config.precision == "auto":
        ampere = torch.cuda.get_device_capability(device) >= (8, 0)
        precision = "bf16" if ampere else "fp32"
    else:
        precision = config.precision
    return Runtime(
        device=device,
        precision=precision,
        tile_pixels=(
            _auto_tile_pixels(device, precision)
            if config.tile_pixels == "auto"
            else config.tile_pixels
        ),
        batch_size=config.batch_size if device.type == "cuda" else 1,
        engine=engine,
    )


def _resolve_device(config: EngineConfig) -> torch.device:
    gpu = config.gpu
    if config.engine in EXTRAS or config.precision == "int8":
        if gpu in (None, -1):
            return torch.device("cpu")
        asked = (
            f"--engine {config.engine}"
            if config.engine in EXTRAS
            else "--precision int8"
        )
        raise ConfigError(
            f"{asked}: found --gpu {gpu}, expected --gpu -1, the CPU; GPUs have "
            "--engine torch in auto, fp32, bf16 or fp16"
        )
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu == -1 or (gpu is None and not available):
        return torch.device("cpu")
    if (gpu or 0) >= available:
        raise ConfigError(
            f"--gpu {gpu}: found {available} CUDA devices; use --gpu -1 for the CPU"
        )
    return torch.device("cuda", gpu or 0)


def _precision_on_cpu(asked: Precision, engine: EngineName) -> str:
    if asked == "fp16":
        raise ConfigError("--precision fp16 needs a GPU; use auto or fp32 on the CPU")
    if asked == "int8" and engine == "torch":
        raise ConfigError(
            "--precision int8: found --engine torch, expected openvino, onnxruntime or "
            "auto"
        )
    if engine == "onnxruntime" and asked == "bf16":
        raise ConfigError(
            "--engine onnxruntime: found --precision bf16, expected fp32, in which it "
            "computes, int8, or --engine torch"
        )
    if asked in ("fp32", "int8"):
        return asked
    if engine == "onnxruntime":
        return "fp32"
    cpu = processor.this_processor()
    if asked == "auto":
        return "bf16" if cpu.has_bf16 else "fp32"
    if not cpu.runs_bf16:
        raise ConfigError(
            "--precision bf16: this processor runs no convolutions in bfloat16: found "
            f"{cpu.name}, expected AVX-512, AVX-NE-CONVERT or the bf16 of Arm; use "
            "auto or fp32"
        )
    return asked


def _engine_on_cpu(asked: EngineName, precision: str) -> str:
    if asked in EXTRAS:
        import_engine(asked)
    if asked != "auto":
        return asked
    faster = FASTER_THAN_TORCH.get(precision, ())
    fastest = next(filter(_is_installed, faster), "torch")
    if precision == "int8" and fastest == "torch":
        raise ConfigError(
            "--precision int8: found neither openvino nor onnxruntime, which compute "
            "in it; pip install 'r2d2-kapture[openvino]', or use auto or fp32"
        )
    return fastest


def import_engine(name: str) -> Any:
    """Import the library of an engine, and that of its models.

    Raises:
        ConfigError: one of them is not installed.
    """
    for module in ("onnx", name):
        found = import_extra(module, EXTRAS[name], f"--engine {name}")
    return found


def _is_installed(name: str) -> bool:
    try:
        import_engine(name)
    except ConfigError:
        return False
    return True


def _auto_tile_pixels(device: torch.device, precision: str) -> int:
    """Half a megapixel in float32, twice that in 16 bits: a layer is 256 MiB then."""
    megapixel = 1 << 20
    if device.type == "cpu":
        return megapixel if precision == "bf16" else megapixel // 2
    free_bytes, _ = torch.cuda.mem_get_info(device)
    # 128 channels of 8 megapixels stay below the 2^31 elements that kernels index
    return max(megapixel, min(free_bytes >> 12, 8 * megapixel))
