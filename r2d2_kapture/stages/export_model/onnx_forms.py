"""Both forms as models of ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from r2d2_kapture.config.export_model import PixelType, Size
from r2d2_kapture.core.onnx_writer import OnnxWriter, Port, Value
from r2d2_kapture.models.int8 import Quantization
from r2d2_kapture.models.network import DenseNetwork
from r2d2_kapture.stages.export_model.onnx_extractor import OnnxExtractor
from r2d2_kapture.stages.export_model.onnx_network import OnnxNetwork, unit
from r2d2_kapture.stages.export_model.plan import ExtractorPlan

IMAGE = "image"
"""Name of the input."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OnnxForms:
    """Writes models of a network.

    Attributes:
        network: in evaluation mode.
        quantization: of its convolutions; None computes in float32.
        pixels: type of the values of an image.
        metadata: texts by name, for the model.
        asked_by: flag that needs the package onnx.
    """

    network: DenseNetwork
    quantization: Quantization | None
    pixels: PixelType
    metadata: Mapping[str, str]
    asked_by: str

    def dense_maps(self, size: Size | None) -> bytes:
        """Images (B, H, W, 3) to the maps of torch_forms.DenseMaps.

        Args:
            size: of a single image; None for any number and sizes.
        """
        shape: tuple[int | str, ...] = ("batch", "height", "width", 3)
        cells: tuple[int | str, ...] = ("rows", "columns")
        if size is not None:
            shape = (1, *size.shape)
            of_map = size.cells(self.network.pixel_stride)
            cells = (of_map.height, of_map.width)
        network, image = self._network(), self._image(shape)
        pixels = network.normalized(network.writer.input(image))
        maps = network.maps(pixels.transpose(0, 3, 1, 2))
        outputs = {
            Port(name=name, shape=(shape[0], channels, *cells)): value
            for name, channels, value in (
                (
                    "descriptors",
                    self.network.descriptor_dim,
                    unit(maps.features, axis=1),
                ),
                ("reliability", 1, maps.reliability),
                ("repeatability", 1, maps.repeatability),
            )
        }
        return self._bytes(network, image, outputs)

    def whole_extractor(self, plan: ExtractorPlan) -> bytes:
        """An image (H, W, 3) to the rows of torch_forms.ExportedExtractor."""
        network, image = self._network(), self._image(plan.size.shape)
        extractor = OnnxExtractor(network=network, plan=plan)
        found = extractor.extract(network.writer.input(image))
        count = plan.settings.top_k
        shapes = {
            "keypoints": (count, 2),
            "descriptors": (count, self.network.descriptor_dim),
            "count": (1,),
        }
        outputs = {
            Port(name=name, shape=shapes.get(name, (count,)), kind=value.kind): value
            for name, value in found.items()
        }
        return self._bytes(network, image, outputs)

    def _image(self, shape: tuple[int | str, ...]) -> Port:
        return Port(name=IMAGE, shape=shape, kind=self.pixels)

    def _network(self) -> OnnxNetwork:
        return OnnxNetwork(
            writer=OnnxWriter(self.asked_by),
            network=self.network,
            quantization=self.quantization,
        )

    def _bytes(
        self, network: OnnxNetwork, image: Port, outputs: Mapping[Port, Value]
    ) -> bytes:
        model = network.writer.model(image, outputs, self.metadata)
        data: bytes = model.SerializeToString(deterministic=True)
        return data
