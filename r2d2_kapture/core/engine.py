"""Fast inference of a dense network: device, precision, folding, tiling."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r2d2_kapture.config.extract import EngineConfig, Precision
from r2d2_kapture.core import processor
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.models.network import (
    DenseNetwork,
    receptive_field,
    repeatability_from_logit,
)

Layer = Callable[[Tensor], Tensor]

NARROW_PIXELS = 32
"""Side below which a CPU computes in float32: oneDNN 3.12 crashes the process on
bfloat16 convolutions whose dilation reaches beyond the image (10x7 pixels, say)."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """The resolved counterpart of EngineConfig: what this machine will do.

    Attributes:
        device: where the network runs.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        tile_pixels: largest number of pixels of one pass.
        batch_size: images of equal size that share one pass.
    """

    device: torch.device
    precision: str
    tile_pixels: int
    batch_size: int

    @property
    def dtype(self) -> torch.dtype:
        return {
            "fp32": torch.float32,
            "bf16": torch.bfloat16,
            "fp16": torch.float16,
        }[self.precision]


@dataclass(frozen=True, kw_only=True)
class FeatureMaps:
    """Maps of one pass.

    Attributes:
        features: (B, H, W, D) in the precision of the engine, not normalised.
        reliability: (B, H, W) float32, 0 to 1.
        repeatability: (B, H, W) float32, 0 to 1.
    """

    features: Tensor
    reliability: Tensor
    repeatability: Tensor


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A window of a level: what goes through the network, and what is kept of it.

    Attributes:
        top, left, bottom, right: the window with its halo, in pixels of the level.
        inner_top, inner_left, inner_bottom, inner_right: the part that it answers for.
    """

    top: int
    left: int
    bottom: int
    right: int
    inner_top: int
    inner_left: int
    inner_bottom: int
    inner_right: int

    @property
    def inner(self) -> tuple[slice, slice]:
        """Rows and columns of the inner part within the window."""
        return (
            slice(self.inner_top - self.top, self.inner_bottom - self.top),
            slice(self.inner_left - self.left, self.inner_right - self.left),
        )

    @property
    def inner_of_whole(self) -> tuple[slice, slice]:
        """Rows and columns of the inner part within the level."""
        return (
            slice(self.inner_top, self.inner_bottom),
            slice(self.inner_left, self.inner_right),
        )

    def answers_for(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Whether places of the window lie in the inner part: (N,) bool."""
        below = (rows >= self.inner_top - self.top) & (
            columns >= self.inner_left - self.left
        )
        above = (rows < self.inner_bottom - self.top) & (
            columns < self.inner_right - self.left
        )
        return below & above

    def in_cells(self, stride: int, height: int, width: int) -> Tile:
        """The same window on a map of (height, width) cells of ``stride`` pixels.

        Args:
            stride: that divides top and left.
            height, width: of the whole map, which may have fewer cells than fit.
        """
        ends = {"bottom": height, "right": width}
        values = {}
        for name, pixels in vars(self).items():
            limit = ends.get(name.removeprefix("inner_"))
            values[name] = (
                pixels // stride if limit is None else min(-(-pixels // stride), limit)
            )
        return Tile(**values)


def resolve_runtime(config: EngineConfig) -> Runtime:
    """Choose device, precision and tile size for this machine.

    ``auto`` precision is bfloat16 where the processor or the GPU computes with it, else
    float32. The mean matching accuracy of R2D2 is within 0.005 of that in float32; of
    D2-Net it was measured with random weights only (docs/accuracy.md).

    Raises:
        ConfigError: the GPU asked for is not there, or the precision asked for does not
            run on the device.
    """
    device = _resolve_device(config.gpu)
    if device.type == "cpu":
        precision = _precision_on_cpu(config.precision)
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
    )


def _resolve_device(gpu: int | None) -> torch.device:
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu == -1 or (gpu is None and not available):
        return torch.device("cpu")
    if (gpu or 0) >= available:
        raise ConfigError(
            f"--gpu {gpu}: found {available} CUDA devices; use --gpu -1 for the CPU"
        )
    return torch.device("cuda", gpu or 0)


def _precision_on_cpu(asked: Precision) -> str:
    if asked == "fp16":
        raise ConfigError("--precision fp16 needs a GPU; use auto or fp32 on the CPU")
    if asked == "fp32":
        return asked
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


def _auto_tile_pixels(device: torch.device, precision: str) -> int:
    """Half a megapixel in float32, twice that in 16 bits: a layer is 256 MiB then."""
    megapixel = 1 << 20
    if device.type == "cpu":
        return megapixel // 2 if precision == "fp32" else megapixel
    free_bytes, _ = torch.cuda.mem_get_info(device)
    # 128 channels of 8 megapixels stay below the 2^31 elements that kernels index
    return max(megapixel, min(free_bytes >> 12, 8 * megapixel))


class Backbone:
    """Convolutional layers with batch norm folded, laid out for device and precision.

    Args:
        ops: convolutions, batch norms, activations, pooling and upsampling, in
            evaluation mode; not modified.
        runtime: from resolve_runtime.
    """

    def __init__(self, ops: nn.Sequential, runtime: Runtime) -> None:
        self.runtime = runtime
        self.halo, self.pixel_stride = receptive_field(ops)
        self._layers = fold_layers(ops, runtime)
        exact = dataclasses.replace(runtime, precision="fp32")
        self._narrow_layers = (
            fold_layers(ops, exact)
            if runtime.device.type == "cpu" and runtime.precision != "fp32"
            else None
        )

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Run one pass.

        Args:
            images: (B, 3, H, W) float32 on the runtime's device, normalised.

        Returns:
            (B, h, w, D) features in the precision of the runtime.
        """
        layers, dtype = self._layers, self.runtime.dtype
        if self._narrow_layers is not None and min(images.shape[2:]) < NARROW_PIXELS:
            layers, dtype = self._narrow_layers, torch.float32
        features = images.to(dtype=dtype, memory_format=torch.channels_last)
        with _true_float32(images.device):
            for layer in layers:
                features = layer(features)
        return features.permute(0, 2, 3, 1).contiguous()

    def tiles(self, height: int, width: int, margin: int) -> Iterator[Tile]:
        """Cut a level into windows no larger than the runtime's tile size.

        A window reaches ``margin`` pixels plus the receptive field beyond the part it
        answers for, so that maps within the margin are those of the whole level.
        """
        stride = self.pixel_stride
        overlap = -(-(self.halo + margin) // stride) * stride
        rows, columns = _tile_shape(
            height,
            width,
            max(self.runtime.tile_pixels // self.runtime.batch_size, 128 * 128),
            overlap,
            stride,
        )
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                bottom, right = min(top + rows, height), min(left + columns, width)
                yield Tile(
                    top=max(top - overlap, 0),
                    left=max(left - overlap, 0),
                    bottom=min(bottom + overlap, height),
                    right=min(right + overlap, width),
                    inner_top=top,
                    inner_left=left,
                    inner_bottom=bottom,
                    inner_right=right,
                )


class Engine:
    """A dense network: its backbone, and both confidences of what that computes.

    Args:
        network: in evaluation mode; it is not modified.
        runtime: from resolve_runtime.
    """

    def __init__(self, network: DenseNetwork, runtime: Runtime) -> None:
        self.backbone = Backbone(network.ops, runtime)
        self.descriptor_dim = network.descriptor_dim
        reliable = network.clf.weight[1] - network.clf.weight[0]
        heads = torch.stack([reliable, network.sal.weight[0]]).flatten(1)
        reliable_bias = torch.diff(_tensor(network.clf.bias))
        bias = torch.cat([reliable_bias, _tensor(network.sal.bias)])
        self._heads = heads.t().contiguous().to(runtime.device)
        self._head_bias = bias.to(runtime.device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> FeatureMaps:
        """Run one pass.

        Args:
            images: (B, 3, H, W) float32 on the engine's device, normalised RGB.
        """
        features = self.backbone(images)
        reliability, repeatability = self._confidences(features)
        return FeatureMaps(
            features=features, reliability=reliability, repeatability=repeatability
        )

    def _confidences(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Both heads in one product, over slices that stay in the cache."""
        flat = features.view(-1, features.shape[-1])
        logits = torch.empty(len(flat), 2, device=flat.device)
        rows = 1 << 20 if flat.is_cuda else 8192
        for start in range(0, len(flat), rows):
            part = flat[start : start + rows].float()
            torch.addmm(
                self._head_bias,
                part.square_() if flat.dtype != torch.float32 else part.square(),
                self._heads,
                out=logits[start : start + rows],
            )
        reliability = torch.sigmoid(logits[:, 0]).view(features.shape[:3])
        repeatability = repeatability_from_logit(logits[:, 1]).view(features.shape[:3])
        return reliability, repeatability


def _true_float32(device: torch.device) -> AbstractContextManager[object]:
    """Keep cuDNN from computing float32 in TF32, whose 10 bits break parity."""
    if device.type != "cuda":
        return nullcontext()
    manager: AbstractContextManager[object] = torch.backends.cudnn.flags(
        enabled=True, allow_tf32=False
    )
    return manager


def _tile_shape(
    height: int, width: int, tile_pixels: int, overlap: int, stride: int
) -> tuple[int, int]:
    """Inner rows and columns of the tiles that waste least within ``tile_pixels``."""
    if height * width <= tile_pixels:
        return height, width
    side = max(int(tile_pixels**0.5) - 2 * overlap, stride)
    if width <= side + 2 * overlap:
        columns = width
        rows = max(tile_pixels // width - 2 * overlap, stride)
    elif height <= side + 2 * overlap:
        rows = height
        columns = max(tile_pixels // height - 2 * overlap, stride)
    else:
        rows = columns = side
    return _even_parts(height, rows, stride), _even_parts(width, columns, stride)


def _even_parts(length: int, longest: int, stride: int) -> int:
    """Multiple of ``stride`` that cuts ``length`` into parts of about the same size,
    none above ``longest``."""
    if length <= longest:
        return length
    part = -(-length // -(-length // (longest // stride * stride)))
    return -(-part // stride) * stride


def fold_layers(ops: nn.Sequential, runtime: Runtime) -> list[Layer]:
    """Fold batch norms into the convolutions before them, and activations where the
    processor's library takes them along."""
    modules = list(ops)
    layers: list[Layer] = []
    while modules:
        module = modules.pop(0)
        if not isinstance(module, nn.Conv2d):
            layers.append(_other_layer(module, runtime))
            continue
        weight, bias = module.weight, _tensor(module.bias)
        if modules and isinstance(norm := modules[0], nn.BatchNorm2d):
            modules.pop(0)
            weight, bias = fold_batch_norm(weight, bias, norm)
        relu = bool(modules) and isinstance(modules[0], nn.ReLU)
        if relu:
            modules.pop(0)
        layers.append(_convolution(module, weight, bias, relu, runtime))
    return layers


def fold_batch_norm(
    weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d
) -> tuple[Tensor, Tensor]:
    """Weights (O, I, h, w) and bias (O,) that do what a batch norm did after them."""
    scale = torch.rsqrt(_tensor(norm.running_var) + norm.eps)
    shift = -_tensor(norm.running_mean) * scale
    if norm.affine:
        scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
    return weight * scale[:, None, None, None], bias * scale + shift


def _tensor(value: Tensor | None) -> Tensor:
    """A parameter that the networks of this package always have."""
    if value is None:
        raise ConfigError("a layer has no bias or statistics; the engine needs both")
    return value


def _convolution(
    module: nn.Conv2d,
    weight: Tensor,
    bias: Tensor,
    relu: bool,
    runtime: Runtime,
) -> Layer:
    weight = weight.detach().to(
        runtime.device, runtime.dtype, memory_format=torch.channels_last
    )
    offset = bias.detach().to(runtime.device, runtime.dtype)
    padding = [int(p) for p in module.padding]
    dilation = list(module.dilation)
    if runtime.device.type == "cpu" and processor.onednn_fuses_activations():
        fused = torch.ops.mkldnn._convolution_pointwise
        activation = "relu" if relu else "none"

        def convolve_fused(x: Tensor) -> Tensor:
            result: Tensor = fused(
                x, weight, offset, padding, [1, 1], dilation, 1, activation, [], ""
            )
            return result

        return convolve_fused

    if runtime.device.type == "cuda" and relu and torch.version.cuda:

        def convolve_by_cudnn(x: Tensor) -> Tensor:
            result: Tensor = torch.cudnn_convolution_relu(
                x, weight, offset, [1, 1], padding, dilation, 1
            )
            return result

        return convolve_by_cudnn

    def convolve(x: Tensor) -> Tensor:
        result = F.conv2d(x, weight, offset, padding=padding, dilation=dilation)
        return result.relu_() if relu else result

    return convolve


def _other_layer(module: nn.Module, runtime: Runtime) -> Layer:
    """Upsample float32 in planes: the order of additions decides ties on flat areas,
    and the published outputs were computed in that order."""
    if not isinstance(module, nn.Upsample) or runtime.precision != "fp32":
        return module

    def upsample_planes(x: Tensor) -> Tensor:
        planes: Tensor = module(x.contiguous())
        return planes.contiguous(memory_format=torch.channels_last)

    return upsample_planes
