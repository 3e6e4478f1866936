"""Settings of matching."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from r2d2_kapture.config.checks import GPU_INDEX, Checked, bounded
from r2d2_kapture.config.plugins import Door


@dataclass(frozen=True, kw_only=True)
class MutualNearestConfig(Checked):
    """Mutual nearest neighbours.

    Attributes:
        ratio: largest distance to the nearest descriptor, relative to that of the
            second nearest, in both directions; 1 keeps all mutual nearest neighbours.
        min_similarity: least cosine similarity of a match; -1 keeps all.
    """

    matcher: ClassVar[str] = "mutual_nearest"

    ratio: float = bounded(1.0, above=0, at_most=1, note="above 0 and at most 1 (off)")
    min_similarity: float = bounded(-1.0, at_least=-1, at_most=1, note="-1 (off) to 1")


@dataclass(frozen=True, kw_only=True)
class DualSoftmaxConfig(Checked):
    """Mutual maxima of the product of the softmax over rows and over columns.

    Attributes:
        temperature: that cosine similarities are divided by; lower is more confident.
        min_probability: least product of both probabilities of a match.
    """

    matcher: ClassVar[str] = "dual_softmax"

    temperature: float = bounded(0.02, at_least=0.001, at_most=10)
    min_probability: float = bounded(0.1, at_least=0, at_most=1)


@dataclass(frozen=True, kw_only=True)
class AdaLamConfig(Checked):
    """AdaLAM: mutual neighbours that are supported by local affine maps.

    Needs the extra ``kornia``.

    Attributes:
        area_ratio: area of an image relative to that of the neighbourhood of a seed;
            lower gives fewer and larger ones.
        search_expansion: radius of the search for support, in radii of the
            neighbourhood.
        local_inliers: least number of matches that support a seed.
        local_confidence: least confidence of a local affine map.
        scale_rate: largest ratio between changes of scale within the neighbourhood.
    """

    matcher: ClassVar[str] = "adalam"

    area_ratio: float = bounded(100.0, at_least=1)
    search_expansion: float = bounded(4.0, at_least=1)
    local_inliers: int = bounded(6, at_least=1)
    local_confidence: float = bounded(200.0, at_least=1)
    scale_rate: float = bounded(1.5, at_least=1)


@dataclass(frozen=True, kw_only=True)
class LightGlueConfig(Checked):
    """LightGlue: a transformer trained for one type of features.

    Needs the extra ``kornia``, and weights: there are none for R2D2 or D2-Net.

    Attributes:
        weights: file of the weights, such as aliked_lightglue.pth of
            github.com/cvg/LightGlue.
        min_confidence: least confidence of a match, 0 to 1.
    """

    matcher: ClassVar[str] = "lightglue"

    weights: Path | None = None
    min_confidence: float = bounded(0.1, at_least=0, at_most=1)


MATCHERS = Door(
    kind="matcher",
    group="r2d2_kapture.matchers",
    own={
        MutualNearestConfig: "r2d2_kapture.matching.mutual_nn:MutualNearest",
        DualSoftmaxConfig: "r2d2_kapture.matching.dual_softmax:DualSoftmax",
        AdaLamConfig: "r2d2_kapture.matching.adalam:AdaLam",
        LightGlueConfig: "r2d2_kapture.matching.lightglue:LightGlueMatcher",
    },
)
"""The matchers that come with the package, one line each."""


@dataclass(frozen=True, kw_only=True)
class MatchConfig(Checked):
    """Settings of matching.

    Attributes:
        matcher: settings of the matcher, whose type selects it.
        gpu: index of the CUDA device, -1 for the CPU; by default the first CUDA device
            if there is one, else the CPU.
        cache_gb: gigabytes of features cached in memory for later pairs.
    """

    matcher: Any = MutualNearestConfig()
    gpu: int | None = bounded(None, at_least=-1, note=GPU_INDEX)
    cache_gb: float = bounded(2.0, at_least=0)
