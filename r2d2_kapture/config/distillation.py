"""Settings of the distillation of R2D2 from a teacher."""

from __future__ import annotations

from dataclasses import dataclass

from r2d2_kapture.config.checks import require


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """Settings of the losses of distillation, instead of AP.

    Attributes:
        teacher_points: greatest number of the teacher's keypoints used per crop.
        random_points: number of random pixels of each crop whose descriptors are
            learned too.
        own_points: the network's own best maxima of repeatability in a crop whose
            descriptors are learned, too.
        match_temperature: temperature of the softmax over similarities of descriptors.
        teacher_temperature: temperature of the softmax over the teacher's; towards 0
            only the true match is right.
        weight_match: weight of the matching loss.
        weight_likeness: weight of the squared differences of the similarities from the
            teacher's.
        weight_reprojection: weight of the distance in pixels between keypoints of both
            images.
        least_repeatability: least repeatability of keypoints in that distance.
        least_score: score of the teacher's keypoints, 0 to 1, below which their
            surroundings are not reliable.
        keep_statistics: normalise by the statistics of the initial weights, instead of
            those of each batch.
    """

    teacher_points: int = 192
    random_points: int = 192
    own_points: int = 0
    match_temperature: float = 0.05
    teacher_temperature: float = 0.03
    weight_match: float = 0.1
    weight_likeness: float = 0.0
    weight_reprojection: float = 1.0
    least_repeatability: float = 0.5
    least_score: float = 0.03
    keep_statistics: bool = False

    def __post_init__(self) -> None:
        for name, least in (
            ("teacher_points", 1),
            ("random_points", 0),
            ("own_points", 0),
            ("weight_match", 0),
            ("weight_likeness", 0),
            ("weight_reprojection", 0),
            ("least_repeatability", 0),
            ("least_score", 0),
        ):
            value = getattr(self, name)
            require(
                value >= least,
                f"--{name.replace('_', '-')}: found {value}, expected >= {least}",
            )
        for name in ("match_temperature", "teacher_temperature"):
            value = getattr(self, name)
            require(
                value > 0,
                f"--{name.replace('_', '-')}: found {value}, expected more than 0",
            )
