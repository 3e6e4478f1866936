"""Settings of extraction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from r2d2_kapture.config.checks import GPU_INDEX, Checked, bounded, require
from r2d2_kapture.config.plugins import Door
from r2d2_kapture.coordinates import ResizeMap

Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
EngineName = Literal["auto", "torch", "openvino", "onnxruntime"]
Preprocessing = Literal["caffe", "torch"]
FileFormat = Literal["npz", "mat", "h5", "colmap-text"]
"""Formats of the features of image files."""
ExportFormat = Literal[
    "colmap", "colmap3", "colmap-db", "bundler", "hloc", "h5", "colmap-text", "kapture"
]
DEFAULT_MODEL = "fast_r2d2_v6"
"""The default bundled model."""
AUTO = "auto"
"""The extractor of the checkpoint's network."""


@dataclass(frozen=True, kw_only=True)
class PyramidConfig(Checked):
    """The searched scales of an image.

    Attributes:
        scale_f: factor between one level and the next smaller one.
        min_size: longest side in pixels below which no level is searched.
        max_size: longest side in pixels above which no level is searched.
        min_scale: smallest scale searched, relative to the image.
        max_scale: largest scale searched, relative to the image.
        coordinates: ``corrected`` resamples each level from the low-pass filtered full
            image, and aligns the borders of level and image; ``published`` takes
            bilinear samples of the level above, and multiplies coordinates by W / w.
    """

    scale_f: float = bounded(2**0.25, above=1, note="a factor > 1")
    min_size: int = 256
    max_size: int = 1024
    min_scale: float = 0.0
    max_scale: float = 1.0
    coordinates: ResizeMap = "corrected"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 <= self.min_size <= self.max_size and self.max_size > 0,
            f"--min-size {self.min_size} --max-size {self.max_size}: "
            "expected 0 <= min-size <= max-size",
        )
        require(
            0 <= self.min_scale <= self.max_scale <= 1 and self.max_scale > 0,
            f"--min-scale {self.min_scale} --max-scale {self.max_scale}: "
            "expected 0 <= min-scale <= max-scale <= 1",
        )


@dataclass(frozen=True, kw_only=True)
class SelectionConfig(Checked):
    """Which pixels of the maps become keypoints.

    Attributes:
        reliability_thr: least reliability of a keypoint, 0 to 1.
        repeatability_thr: least repeatability of a keypoint, 0 to 1.
        top_k: keypoints kept per image, the best of all levels; 0 keeps all.
        subpixel: refine each maximum by a quadratic fit, and read its descriptor there.
    """

    reliability_thr: float = bounded(0.7, at_least=0, at_most=1)
    repeatability_thr: float = bounded(0.7, at_least=0, at_most=1)
    top_k: int = bounded(5000, at_least=0, note="0 (all) or more")
    subpixel: bool = True


@dataclass(frozen=True, kw_only=True)
class R2D2Config(SelectionConfig, PyramidConfig):
    """Settings of the features of R2D2 and Fast-R2D2."""

    extractor: ClassVar[str] = "r2d2"


@dataclass(frozen=True, kw_only=True)
class D2NetConfig(Checked):
    """Settings of D2-Net's features.

    Attributes:
        preprocessing: what the weights were trained with: ``caffe`` (BGR, mean
            subtracted) or ``torch`` (RGB, normalised by ImageNet's mean and deviation);
            by default what the checkpoint states, else caffe.
        max_edge: longest side in pixels; larger images are downscaled first; 0 is no
            limit.
        max_sum_edges: width + height in pixels; larger images are downscaled first; 0
            is no limit.
        multiscale: search scales 0.5, 1 and 2, adding features of lower scales and
            suppressing their detections at higher ones; else scale 1 only.
        relu: clip negative features to 0, as in training.
        max_keypoints: keypoints kept per image, the best of all scales; 0 keeps all.
    """

    extractor: ClassVar[str] = "d2net"

    preprocessing: Preprocessing | None = None
    max_edge: int = bounded(1600, at_least=0, note="0 (no limit) or more")
    max_sum_edges: int = bounded(2800, at_least=0, note="0 (no limit) or more")
    multiscale: bool = False
    relu: bool = True
    max_keypoints: int = bounded(0, at_least=0, note="0 (no limit) or more")


@dataclass(frozen=True, kw_only=True)
class EngineConfig(Checked):
    """Settings of inference.

    Attributes:
        engine: library that computes the network; ``auto`` is the fastest that is
            installed and as exact: on a CPU in fp32 onnxruntime (extra ``onnx``), then
            openvino (extra ``openvino``), else torch, which alone runs on GPUs.
        precision: arithmetic of the network; ``auto`` is bf16 if it is faster on the
            device (AVX-512 with BF16, AMX, GPUs since Ampere), else fp32; with R2D2
            both are equally accurate. bf16 is refused on processors without support,
            such as those with AVX2 only. int8, on a CPU by openvino or onnxruntime, is
            faster still; R2D2 and Fast-R2D2 have it.
        gpu: index of the CUDA device, -1 for the CPU; by default the first CUDA device
            if there is one, else the CPU.
        tile_pixels: pixels above which a level is cut into tiles that overlap by the
            receptive field; ``auto`` is 1 megapixel on the CPU in bf16 and half of
            that in fp32 (layers of 256 MiB), and what fits on a GPU.
        batch_size: images of equal size in one pass on a GPU; the CPU processes one
            image at a time, which is as fast and keeps outputs identical.
    """

    engine: EngineName = "auto"
    precision: Precision = "auto"
    gpu: int | None = bounded(None, at_least=-1, note=GPU_INDEX)
    tile_pixels: int | Literal["auto"] = bounded(
        "auto", at_least=128 * 128, note="auto or at least 16384"
    )
    batch_size: int = bounded(1, at_least=1)


@dataclass(frozen=True, kw_only=True)
class SiftConfig(Checked):
    """Settings of COLMAP's SIFT.

    Attributes:
        root: RootSIFT: square roots of descriptors normalised by their sum (L1), else
            descriptors of unit L2 norm.
        upright: orientation 0 for all keypoints, else up to two for each.
        max_keypoints: keypoints kept per image, the largest first; 0 keeps all.
        peak_threshold: least contrast of a keypoint, 0 to 1.
        edge_threshold: greatest ratio of the curvatures of a keypoint.
        first_octave: -1 doubles the size of the image first, 0 does not.
        max_edge: longest side in pixels; larger images are downscaled first; 0 is no
            limit.
    """

    extractor: ClassVar[str] = "sift"

    root: bool = True
    upright: bool = False
    max_keypoints: int = bounded(8192, at_least=0, note="0 (all) or more")
    peak_threshold: float = bounded(0.02 / 3, at_least=0, at_most=1)
    edge_threshold: float = bounded(10.0, above=1)
    first_octave: int = bounded(-1, at_least=-1, at_most=4)
    max_edge: int = bounded(3200, at_least=0, note="0 (no limit) or more")


@dataclass(frozen=True, kw_only=True)
class AlikedConfig(Checked):
    """Settings of ALIKED. Needs the extra ``kornia`` and a file of weights.

    Attributes:
        max_keypoints: keypoints kept per image, the best first; 0 keeps all.
        threshold: least score of a keypoint; images without any get those above the
            mean score.
        nms_radius: radius in pixels in which a keypoint is the only one.
        max_edge: longest side in pixels; larger images are downscaled first; 0 is no
            limit.
    """

    extractor: ClassVar[str] = "aliked"

    max_keypoints: int = bounded(5000, at_least=0, note="0 (all) or more")
    threshold: float = bounded(0.2, above=0, at_most=1)
    nms_radius: int = bounded(2, at_least=1)
    max_edge: int = bounded(1600, at_least=0, note="0 (no limit) or more")


@dataclass(frozen=True, kw_only=True)
class DiskConfig(Checked):
    """Settings of DISK. Needs the extra ``kornia`` and a file of weights.

    Attributes:
        max_keypoints: keypoints kept per image, the best first; 0 keeps all.
        threshold: score, a logit, above which a maximum is a keypoint.
        window: side in pixels of the window in which a keypoint is the maximum.
        max_edge: longest side in pixels; larger images are downscaled first; 0 is no
            limit.
    """

    extractor: ClassVar[str] = "disk"

    max_keypoints: int = bounded(5000, at_least=0, note="0 (all) or more")
    threshold: float = 0.0
    window: int = bounded(5, at_least=3)
    max_edge: int = bounded(1600, at_least=0, note="0 (no limit) or more")


EXTRACTORS = Door(
    kind="extractor",
    group="r2d2_kapture.extractors",
    own={
        R2D2Config: "r2d2_kapture.extractors.r2d2:R2D2Extractor",
        D2NetConfig: "r2d2_kapture.extractors.d2net:D2NetExtractor",
        SiftConfig: "r2d2_kapture.extractors.sift:SiftExtractor",
        AlikedConfig: "r2d2_kapture.extractors.aliked:AlikedExtractor",
        DiskConfig: "r2d2_kapture.extractors.disk:DiskExtractor",
    },
    prefixed=("sift", "aliked", "disk"),
)
"""The extractors that come with the package, one line each."""


@dataclass(frozen=True, kw_only=True)
class ExtractConfig(EngineConfig):
    """All settings of extraction.

    Attributes:
        extractor: settings of the extractor, whose type selects it.
    """

    extractor: Any = R2D2Config()
