"""Both forms as modules of torch, made of the functions that the package extracts with.

They are traced: what depends on the size of an image only becomes constant.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r2d2_kapture.coordinates import image_from_level
from r2d2_kapture.core.graph import (
    Convolution,
    FoldedLayer,
    Pooling,
    Upsampling,
    confidence_heads,
    folded_layers,
)
from r2d2_kapture.core.pyramid import DEVIATION, MEAN, Level, iterate_levels
from r2d2_kapture.core.selection import (
    local_maxima,
    sample_descriptors,
    subpixel_offsets,
)
from r2d2_kapture.models.network import DenseNetwork, repeatability_from_logit
from r2d2_kapture.stages.export_model.plan import ExtractorPlan
from r2d2_kapture.types import PATCH_DIAMETER

METADATA_NAME = "metadata.json"
"""Of the extra file in a TorchScript archive."""


class Maps(NamedTuple):
    """Of one pass: (B, D, h, w) not normalised, and twice (B, h, w)."""

    features: Tensor
    reliability: Tensor
    repeatability: Tensor


class ImageNetwork(nn.Module):
    """A network from RGB of 0 to 255 on, its batch norms folded.

    Args:
        network: in evaluation mode; not modified.
    """

    mean: Tensor
    deviation: Tensor
    head_weight: Tensor
    head_bias: Tensor

    def __init__(self, network: DenseNetwork) -> None:
        super().__init__()
        self.layers = nn.Sequential(*map(_module, folded_layers(network.ops)))
        heads = confidence_heads(network)
        for name, values in (
            ("mean", torch.tensor(MEAN).view(3, 1, 1)),
            ("deviation", torch.tensor(DEVIATION).view(3, 1, 1)),
            ("head_weight", heads.weight),
            ("head_bias", heads.bias),
        ):
            self.register_buffer(name, values)

    def normalized(self, images: Tensor) -> Tensor:
        """(B, H, W, 3) RGB, 0 to 255 of any type, as (B, 3, H, W) for the network."""
        planes = images.permute(0, 3, 1, 2).to(torch.float32)
        return (planes / 255 - self.mean) / self.deviation

    def maps(self, planes: Tensor) -> Maps:
        """One pass over (B, 3, H, W) float32, normalised."""
        features = self.layers(planes)
        logits = F.conv2d(features.square(), self.head_weight, self.head_bias)
        return Maps(
            features=features,
            reliability=torch.sigmoid(logits[:, 0]),
            repeatability=repeatability_from_logit(logits[:, 1]),
        )


class DenseMaps(nn.Module):
    """Dense maps of images of any size."""

    def __init__(self, network: DenseNetwork) -> None:
        super().__init__()
        self.network = ImageNetwork(network)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Descriptors (B, D, h, w) of unit norm, and both confidences (B, 1, h, w).

        Args:
            images: (B, H, W, 3) RGB, 0 to 255.
        """
        maps = self.network.maps(self.network.normalized(images))
        descriptors = F.normalize(maps.features, dim=1)
        return descriptors, maps.reliability[:, None], maps.repeatability[:, None]


class ExportedExtractor(nn.Module):
    """The extractor of one image size.

    Args:
        network: in evaluation mode.
        plan: sizes and settings.
    """

    def __init__(self, network: DenseNetwork, plan: ExtractorPlan) -> None:
        super().__init__()
        self.network = ImageNetwork(network)
        self.plan = plan

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Keypoints (K, 2), scales (K,), scores (K,), descriptors (K, D), count (1,).

        Args:
            image: (H, W, 3) RGB, 0 to 255.
        """
        settings = self.plan.settings
        pyramid = iterate_levels(
            self.network.normalized(image[None]), self.plan.levels, settings.coordinates
        )
        levels = [
            self._rows(*item) for item in pyramid if self.plan.has_output(item[0])
        ]
        keypoints, scales, scores, descriptors = map(torch.cat, zip(*levels))
        best = torch.argsort(scores, descending=True, stable=True)[: settings.top_k]
        count = torch.ones_like(best).sum(dim=0, keepdim=True)
        return (
            self._padded(keypoints[best]),
            self._padded(scales[best]),
            self._padded(scores[best]),
            self._padded(descriptors[best]),
            count,
        )

    def _rows(self, level: Level, planes: Tensor) -> tuple[Tensor, ...]:
        """Keypoints, scales, scores and descriptors of a level."""
        settings, size = self.plan.settings, self.plan.size
        features, (reliability,), (repeatability,) = self.network.maps(planes)
        rows, columns = local_maxima(
            reliability,
            repeatability,
            reliability_thr=settings.reliability_thr,
            repeatability_thr=settings.repeatability_thr,
        )
        cells = features[0].permute(1, 2, 0)
        x, y = columns.float(), rows.float()
        if settings.subpixel:
            offsets = subpixel_offsets(repeatability, rows, columns)
            x, y = x + offsets[:, 0], y + offsets[:, 1]
        descriptors = sample_descriptors(cells, x, y)
        resize = settings.coordinates
        keypoints = torch.stack(
            [
                image_from_level(x, level.width, size.width, resize),
                image_from_level(y, level.height, size.height, resize),
            ],
            dim=1,
        )
        scales = torch.full_like(x, PATCH_DIAMETER / level.scale)
        scores = reliability[rows, columns] * repeatability[rows, columns]
        return keypoints, scales, scores, descriptors

    def _padded(self, rows: Tensor) -> Tensor:
        """``top_k`` rows, zeros where there are fewer."""
        zeros = rows.new_zeros(self.plan.settings.top_k, *rows.shape[1:])
        return torch.cat([rows, zeros])[: self.plan.settings.top_k]


def torchscript(
    module: nn.Module, example: Tensor, metadata: Mapping[str, str]
) -> bytes:
    """Trace a module, its weights as constants.

    Args:
        module: one of those above.
        example: of its input.
        metadata: texts by name, for the archive's METADATA_NAME.
    """
    fixed = module.eval().requires_grad_(False)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # sizes become constants, as they should
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            fixed, example, check_trace=False
        )
        frozen = torch.jit.freeze(traced)
        text = json.dumps(dict(metadata), indent=2, ensure_ascii=False)
        torch.jit.save(frozen, buffer, _extra_files={METADATA_NAME: text})
    return _anonymous(buffer.getvalue())


def _anonymous(archive: bytes) -> bytes:
    """The archive without paths of this computer, and the number of the trace."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(archive)) as found,
        zipfile.ZipFile(out, "w") as new,
    ):
        for name in found.namelist():
            if name.endswith((".debug_pkl", "serialization_id")):
                continue
            content = found.read(name)
            if name.endswith((".py", "data.pkl")):
                content = re.sub(rb"\.___torch_mangle_\d+", b"", content)
            plain = re.sub(r"/___torch_mangle_\d+", "", name)
            new.writestr(zipfile.ZipInfo(plain), content)
    return out.getvalue()


def _module(layer: FoldedLayer) -> nn.Module:
    match layer:
        case Convolution():
            outputs, inputs, rows, columns = layer.weight.shape
            convolution = nn.Conv2d(
                inputs,
                outputs,
                (rows, columns),
                padding=layer.padding,
                dilation=layer.dilation,
            )
            convolution.load_state_dict({"weight": layer.weight, "bias": layer.bias})
            return nn.Sequential(convolution, nn.ReLU()) if layer.relu else convolution
        case Pooling(kind="max"):
            return nn.MaxPool2d(layer.size, layer.stride)
        case Pooling():
            return nn.AvgPool2d(layer.size, layer.stride)
        case Upsampling():
            return nn.Upsample(
                scale_factor=layer.factor, mode="bilinear", align_corners=False
            )
