"""What a model can be exported to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from r2d2_kapture.config.checks import Checked, require
from r2d2_kapture.errors import ConfigError

ModelFormat = Literal["onnx", "openvino", "torchscript"]
ModelForm = Literal["dense", "extractor"]
PixelType = Literal["uint8", "float32"]
LONGEST_SIDE = 16384
"""Of an image, in pixels."""


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


def read_size(text: str) -> Size:
    """Read WIDTHxHEIGHT.

    Raises:
        ConfigError: it is something else, or larger than any photograph.
    """
    found = re.fullmatch(r"([1-9]\d{0,4})[xX×]([1-9]\d{0,4})", text)
    if found is None or max(int(found[1]), int(found[2])) > LONGEST_SIDE:
        raise ConfigError(
            f"--size {text}: expected WIDTHxHEIGHT in pixels, such as 640x480, at most "
            f"{LONGEST_SIDE} each"
        )
    return Size(width=int(found[1]), height=int(found[2]))


@dataclass(frozen=True, kw_only=True)
class ModelTarget(Checked):
    """What a model is exported to.

    Attributes:
        to: the format.
        form: dense maps, or the whole extractor.
        size: of the images; None for dense maps of any.
        pixels: type of the values of an image; a model of torch takes both.
        int8: whether convolutions compute in 8-bit integers.
        half: whether OpenVINO stores weights in float16.
    """

    to: ModelFormat
    form: ModelForm = "dense"
    size: Size | None = None
    pixels: PixelType = "uint8"
    int8: bool = False
    half: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.size is not None or self.form == "dense",
            "--form extractor: found no --size, expected that of the images, such as "
            "--size 640x480",
        )
        require(
            not self.half or self.to == "openvino",
            f"--half: found --to {self.to}, expected --to openvino",
        )
        require(
            not self.int8 or self.to != "torchscript",
            "--int8: found --to torchscript, expected --to onnx or openvino",
        )

    @property
    def record(self) -> dict[str, str | bool | None]:
        """As plain values."""
        return {**vars(self), "size": None if self.size is None else self.size.text}

    def file_name(self, model: str) -> str:
        """Of a model of this name, without its ending."""
        size = "" if self.size is None else f"_{self.size.text}"
        kind = "_int8" * self.int8 + "_half" * self.half
        return f"{model}_{self.form}{size}{kind}"
