"""Both confidences of dense features, at their resolution or at twice that.

A network may end by doubling its features bilinearly, as Fast-R2D2 does. The doubled
ones, a fifth of its time in float32, are never made: the confidences are linear in
their squares, and between neighbours p and q the square of a p + b q is
a^2 p^2 + 2 a b p q + b^2 q^2, so products with the heads at the columns of the features
and between them are enough. Only rows are doubled, a slice at a time.
"""

from __future__ import annotations

import functools
import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor

from r2d2_kapture.core.graph import confidence_heads
from r2d2_kapture.models.network import DenseNetwork, repeatability_from_logit

PLACES = 8192
"""Of a slice, for each thread; their float32 features of 128 channels are 4 MiB."""
PLACES_ON_CUDA = 1 << 20
MOST_FUSED = 1 << 31
"""Values of the features: fused_heads counts them in 32 bits."""

FAR = 0.25
"""Weight of the farther of the two cells that a doubled place lies between."""


class Heads:
    """The heads of a network, of which one product gives both confidences.

    Args:
        network: whose heads they are; not modified.
        device: where they run.
    """

    def __init__(self, network: DenseNetwork, device: torch.device) -> None:
        heads = confidence_heads(network)
        self._weight = heads.weight.flatten(1).to(device)
        self._bias = heads.bias.to(device)

    def __call__(self, features: Tensor, doubled: bool) -> tuple[Tensor, Tensor]:
        """Reliability and repeatability, (B, H, W) float32 each, 0 to 1.

        Args:
            features: (B, h, w, D), any float type, contiguous.
            doubled: whether H and W are twice h and w, features between cells being
                interpolated bilinearly, borders aligned; else they are h and w.
        """
        if features.numel() < MOST_FUSED and _fuses(features.device):
            from r2d2_kapture.core import fused_heads

            return fused_heads.confidences(features, self._weight, self._bias, doubled)
        logits = self._doubled(features) if doubled else self._alike(features)
        # functions of whole planes are several times faster
        reliable, repeatable = logits.permute(3, 0, 1, 2).contiguous()
        return reliable.sigmoid_(), repeatability_from_logit(repeatable)

    def _of(self, squares: Tensor) -> Tensor:
        """Logits of squared features, (..., D) to (..., 2)."""
        return F.linear(squares, self._weight, self._bias)

    def _alike(self, features: Tensor) -> Tensor:
        """(B, h, w, 2) logits of (B, h, w, D) features."""
        flat = features.view(-1, features.shape[-1])
        parts = torch.split(flat, _places(flat.device))
        logits = torch.cat([self._of(part.float().square()) for part in parts])
        return logits.view(*features.shape[:3], 2)

    def _doubled(self, features: Tensor) -> Tensor:
        """(B, 2h, 2w, 2) logits of (B, h, w, D) features."""
        height, width = features.shape[1:3]
        places = _places(features.device)
        step = max(places // (2 * width * len(features)), 1)
        at_columns, between = [], []
        for top in range(0, height, step):
            rows = _double_rows(features, top, min(top + step, height))
            at_columns.append(self._of(rows.square()))
            between.append(self._of(rows[:, :, :-1] * rows[:, :, 1:]))
        return _double_columns(torch.cat(at_columns, 1), torch.cat(between, 1))


def _places(device: torch.device) -> int:
    """Places that a slice has: too few, and threads wait for each other."""
    if device.type == "cuda":
        return PLACES_ON_CUDA
    return PLACES * torch.get_num_threads()


@functools.cache
def _fuses(device: torch.device) -> bool:
    """Whether fused_heads runs there: torch for CUDA brings Triton on Linux."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    from r2d2_kapture.core import fused_heads

    return fused_heads.works_on(device)


def _double_rows(features: Tensor, top: int, bottom: int) -> Tensor:
    """Double rows ``top`` to ``bottom`` bilinearly, the borders of the map aligned.

    Args:
        features: (B, h, w, D), any float type.

    Returns:
        (B, 2 (bottom - top), w, D) float32.
    """
    batch, height, width, dim = features.shape
    around = torch.arange(top - 1, bottom + 1, device=features.device)
    cells = features.index_select(1, around.clamp_(0, height - 1)).float()
    here = cells[:, 1:-1]
    rows = torch.empty(batch, bottom - top, 2, width, dim, device=features.device)
    torch.lerp(here, cells[:, :-2], FAR, out=rows[:, :, 0])
    torch.lerp(here, cells[:, 2:], FAR, out=rows[:, :, 1])
    return rows.flatten(1, 2)


def _double_columns(at_columns: Tensor, between: Tensor) -> Tensor:
    """Values of squares at the doubled columns.

    They are sums of differences, so that flat areas stay exactly flat.

    Args:
        at_columns: (B, H, w, 2), of squares of the columns.
        between: (B, H, w - 1, 2), of products of each column and the next.

    Returns:
        (B, H, 2w, 2).
    """
    doubled = at_columns.repeat_interleave(2, dim=2)
    left, right = at_columns[:, :, :-1], at_columns[:, :, 1:]
    both, far = 2 * FAR * (1 - FAR), FAR**2
    doubled[:, :, 1:-1:2] += both * (between - left) + far * (right - left)
    doubled[:, :, 2::2] += both * (between - right) + far * (left - right)
    return doubled
