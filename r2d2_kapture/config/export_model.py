"""What a model can be exported to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from r2d2_kapture.errors import ConfigError

ModelFormat = Literal["onnx", "openvino", "torchscript"]
ModelForm = Literal["dense", "extractor"]
PixelType = Literal["uint8", "float32"]


@dataclass(frozen=True, kw_only=True)
class Size:
    """Of an image or a map, in pixels or cells."""

    height: int
    width: int

    @property
    def count(self) -> int:
        """Of pixels or cells."""
        return self.height * self.width

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an array of RGB pixels."""
        return self.height, self.width, 3

    def cells(self, stride: int) -> Size:
        """Of the maps of a network of this stride."""
        sides = self.height // stride * stride, self.width // stride * stride
        return Size(height=sides[0], width=sides[1])

    @property
    def text(self) -> str:
        """As it is typed."""
        return f"{self.width}x{self.height}"


def read_size(text: str, flag: str = "--size") -> Size:
    """Read WIDTHxHEIGHT.

    Raises:
        ConfigError: it is something else.
    """
    found = re.fullmatch(r"([1-9]\d{0,4})[xX×]([1-9]\d{0,4})", text)
    if found is None:
        raise ConfigError(
            f"{flag} {text}: expected WIDTHxHEIGHT in pixels, such as 640x480"
        )
    return Size(width=int(found[1]), height=int(found[2]))
