"""Weights of R2D2 for Fast-R2D2, and the other way round."""

from __future__ import annotations

from torch import nn

from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.models.network import DenseNetwork


def transfer_weights(source: DenseNetwork, target: DenseNetwork) -> None:
    """Copy weights and statistics layer by layer, in order.

    R2D2 and Fast-R2D2 have the same layers: where the fast one pools once and goes on
    at half resolution, the other doubles its dilations. Weights of one are therefore a
    good start for the other.

    Args:
        source: left as it is.
        target: of the same width and descriptor length; overwritten.

    Raises:
        CheckpointError: their layers differ.
    """
    layers, others = _layers(source), _layers(target)
    if [_shapes(layer) for layer in layers] != [_shapes(layer) for layer in others]:
        raise CheckpointError(
            "the layers of the two networks differ, expected R2D2 and Fast-R2D2 of the "
            "same width and descriptor length"
        )
    for layer, other in zip(layers, others, strict=True):
        other.load_state_dict(layer.state_dict())


def _layers(network: DenseNetwork) -> list[nn.Module]:
    """Modules that hold weights or statistics themselves, in the order of use."""
    return [
        module
        for module in network.modules()
        if not list(module.children()) and module.state_dict()
    ]


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in module.state_dict().items()}
