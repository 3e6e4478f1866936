"""What runs the convolutional layers of a network, by whatever library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor, nn

from r2d2_kapture.core.runtime import Runtime
from r2d2_kapture.core.tiles import Tile, cut_tiles
from r2d2_kapture.models.int8 import Quantization
from r2d2_kapture.models.network import receptive_field


class Backbone(ABC):
    """Convolutional layers, ready to run.

    Args:
        ops: convolutions, batch norms, activations, pooling and upsampling, in
            evaluation mode; not modified.
        runtime: from resolve_runtime.
        quantization: of the convolutions, for ``int8``; torch has none.

    Attributes:
        runtime: as given.
        halo: pixels around an output that can change it, a multiple of the stride.
        pixel_stride: pixels to which the borders of a part must be aligned.
    """

    def __init__(
        self,
        ops: nn.Sequential,
        runtime: Runtime,
        quantization: Quantization | None = None,
    ) -> None:
        self.runtime = runtime
        self.halo, self.pixel_stride = receptive_field(ops)

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """Run one pass.

        Args:
            images: (B, 3, H, W) float32 on the runtime's device, normalised.

        Returns:
            (B, h, w, D) features, contiguous, in the precision of the runtime, or in
            float32 where that does not run on so few pixels.
        """

    def tiles(self, height: int, width: int, margin: int) -> Iterator[Tile]:
        """Cut a level into windows no larger than the runtime's tile size.

        A window reaches ``margin`` pixels plus the receptive field beyond the part it
        answers for, so that maps within the margin are those of the whole level.
        """
        stride = self.pixel_stride
        return cut_tiles(
            height,
            width,
            tile_pixels=max(
                self.runtime.tile_pixels // self.runtime.batch_size, 128 * 128
            ),
            overlap=-(-(self.halo + margin) // stride) * stride,
            stride=stride,
        )
