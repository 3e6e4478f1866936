"""The door for matchers: what one is given, what it returns, where it is found.

A matcher is one class in one file and one line of MATCHERS (config.match), or of the
entry-point group ``r2d2_kapture.matchers`` of another package.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from r2d2_kapture.config.match import MATCHERS, MutualNearestConfig
from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.types import LocalFeatures, PairMatches


@dataclass(frozen=True, kw_only=True, eq=False)
class MatchInput:
    """Local features of one image as a matcher sees them, on its device.

    Attributes:
        descriptors: (N, D) float32, unit L2 norm; a row of zeros matches nothing.
        keypoints: (N, 2) float32 x, y in pixels, (0, 0) at the centre of the top-left
            pixel; None where the matcher does not need them.
        scales: (N,) float32, side in pixels of the patch described; None likewise.
        scores: (N,) float32, higher is better; None where they are not known.
        image_size: (W, H) in pixels; None where it is not known.
    """

    descriptors: Tensor
    keypoints: Tensor | None = None
    scales: Tensor | None = None
    scores: Tensor | None = None
    image_size: tuple[int, int] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        parts = (self.descriptors, self.keypoints, self.scales, self.scores)
        return sum(part.nbytes for part in parts if part is not None)


class Matcher(Protocol):
    """Matches the local features of two images. Matchers may inherit from it.

    Attributes:
        settings_class: frozen dataclass of its settings; its ``matcher`` is the name
            that the matcher is registered by.
        needs_keypoints: whether it reads more than the descriptors.
        settings: that it was made with.
    """

    settings_class: ClassVar[type]
    needs_keypoints: ClassVar[bool]
    settings: Any

    @property
    def provenance(self) -> dict[str, Any]:
        """What decides the matches, as manifests record it: by default the settings."""
        return dataclasses.asdict(self.settings)

    def __call__(self, features1: MatchInput, features2: MatchInput) -> PairMatches:
        """Match two images; the same input gives the same matches in any thread.

        Raises:
            FeatureFormatError: it cannot match such features.
        """


def build_matcher(
    settings: Any = MutualNearestConfig(), device: torch.device | str = "cpu"
) -> Matcher:
    """Make the matcher that settings belong to.

    Args:
        settings: an instance of a matcher's ``settings_class``.
        device: that its input is on.

    Raises:
        ConfigError: no matcher has such settings, or what it needs is not installed.
    """
    matcher: Matcher = MATCHERS.load(settings.matcher)(settings, torch.device(device))
    return matcher


def matcher_record(matcher: Matcher) -> dict[str, Any]:
    """What manifests record: the name where not the default, the provenance, and the
    code of a third-party one."""
    name = matcher.settings.matcher
    named = {} if name == MutualNearestConfig.matcher else {"matcher": name}
    return named | matcher.provenance | MATCHERS.code(name)


def match_input(features: LocalFeatures, device: torch.device | str) -> MatchInput:
    """The features of an image on a device."""
    return MatchInput(
        descriptors=torch.from_numpy(features.unit_descriptors).to(device),
        keypoints=torch.from_numpy(features.keypoints).to(device),
        scales=torch.from_numpy(features.scales).to(device),
        scores=torch.from_numpy(features.scores).to(device),
        image_size=features.image_size,
    )


def match_features(
    matcher: Matcher,
    features1: LocalFeatures,
    features2: LocalFeatures,
    *,
    device: torch.device | str = "cpu",
    images: tuple[str, str] = ("image 1", "image 2"),
) -> PairMatches:
    """Match two images.

    Args:
        matcher: on that device.
        features1, features2: by one extractor.
        device: that the matcher runs on.
        images: names of the two, for the error.

    Raises:
        FeatureFormatError: descriptors of different lengths, or as the matcher.
    """
    lengths = [features.descriptors.shape[1] for features in (features1, features2)]
    if lengths[0] != lengths[1]:
        raise FeatureFormatError(
            f"descriptors of '{images[0]}' and '{images[1]}': found {lengths[0]} and "
            f"{lengths[1]} values each, expected as many: features of one extractor"
        )
    return matcher(match_input(features1, device), match_input(features2, device))
