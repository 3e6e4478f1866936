"""The folded layers of a network as plain data.

They are what a network computes in evaluation mode: batch norms are folded into the
convolutions before them, and activations belong to their convolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from r2d2_kapture.errors import ConfigError
from r2d2_kapture.models.network import DenseNetwork


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution:
    """A convolution of stride 1 with its batch norm and activation.

    Attributes:
        weight: (O, I, h, w) float32.
        bias: (O,) float32.
        padding: rows and columns of zeros on either side.
        dilation: of rows and columns.
        relu: whether negative results become 0.
    """

    weight: Tensor
    bias: Tensor
    padding: tuple[int, int]
    dilation: tuple[int, int]
    relu: bool


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """The maximum or the average of square windows, those beyond the border left out.

    Attributes:
        kind: which.
        size: side of a window.
        stride: from one window to the next.
    """

    kind: Literal["max", "average"]
    size: int
    stride: int


@dataclass(frozen=True, kw_only=True)
class Upsampling:
    """Bilinear enlargement; borders, not corner centres, are aligned.

    Attributes:
        factor: of both sides.
    """

    factor: int


FoldedLayer = Convolution | Pooling | Upsampling


def folded_layers(ops: nn.Sequential) -> list[FoldedLayer]:
    """Fold batch norms and activations into the convolutions before them.

    Args:
        ops: of a network, in evaluation mode; not modified.

    Raises:
        ConfigError: a layer that no network of this package has.
    """
    modules = list(ops)
    layers: list[FoldedLayer] = []
    while modules:
        module = modules.pop(0)
        if not isinstance(module, nn.Conv2d):
            layers.append(_without_weights(module))
            continue
        weight, bias = module.weight, given(module.bias)
        if modules and isinstance(norm := modules[0], nn.BatchNorm2d):
            modules.pop(0)
            weight, bias = fold_batch_norm(weight, bias, norm)
        relu = bool(modules) and isinstance(modules[0], nn.ReLU)
        if relu:
            modules.pop(0)
        rows, columns = (int(side) for side in module.padding)
        layers.append(
            Convolution(
                weight=weight.detach(),
                bias=bias.detach(),
                padding=(rows, columns),
                dilation=(module.dilation[0], module.dilation[1]),
                relu=relu,
            )
        )
    return layers


def confidence_heads(network: DenseNetwork) -> Convolution:
    """Both heads of a network as one convolution of its squared features.

    Its two channels are the logits of reliability, for a sigmoid, and of repeatability.
    """
    reliable = network.clf.weight[1:] - network.clf.weight[:1]
    return Convolution(
        weight=torch.cat([reliable, network.sal.weight]).detach(),
        bias=torch.cat(
            [torch.diff(given(network.clf.bias)), given(network.sal.bias)]
        ).detach(),
        padding=(0, 0),
        dilation=(1, 1),
        relu=False,
    )


def fold_batch_norm(
    weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d
) -> tuple[Tensor, Tensor]:
    """Weights (O, I, h, w) and bias (O,) that do what a batch norm did after them."""
    scale = (given(norm.running_var) + norm.eps).rsqrt()
    shift = -given(norm.running_mean) * scale
    if norm.affine:
        scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
    return weight * scale[:, None, None, None], bias * scale + shift


def given(value: Tensor | None) -> Tensor:
    """A parameter that the networks of this package always have."""
    if value is None:
        raise ConfigError("a layer has no bias or statistics; the engine needs both")
    return value


def _without_weights(module: nn.Module) -> FoldedLayer:
    if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
        return Pooling(
            kind="max" if isinstance(module, nn.MaxPool2d) else "average",
            size=int(module.kernel_size),  # type: ignore[arg-type]
            stride=int(module.stride),  # type: ignore[arg-type]
        )
    if isinstance(module, nn.Upsample) and (
        (module.mode, bool(module.align_corners)) == ("bilinear", False)
    ):
        return Upsampling(factor=int(module.scale_factor))  # type: ignore[arg-type]
    raise ConfigError(
        f"found a layer {type(module).__name__}, expected convolutions, each with its "
        "batch norm and ReLU, pooling and bilinear upsampling"
    )
