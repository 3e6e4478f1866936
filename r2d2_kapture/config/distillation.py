"""Settings of the distillation of R2D2 from a teacher."""

from __future__ import annotations

from dataclasses import dataclass

from r2d2_kapture.config.checks import Checked, bounded


@dataclass(frozen=True, kw_only=True)
class DistillationConfig(Checked):
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
        weight_reward: weight of the reward of matching the network's own keypoints: a
            match gains up to 1, and costs if it is wrong; 0 leaves it out.
        wrong_cost: what a wrong match costs; the higher, the fewer and the more exact
            keypoints are.
        reward_points: most keypoints of an image that are matched for the reward.
        reward_temperature: temperature of the softmax over similarities in the reward.
        keep_statistics: normalise by the statistics of the initial weights, instead of
            those of each batch.
    """

    teacher_points: int = bounded(192, at_least=1)
    random_points: int = bounded(192, at_least=0)
    own_points: int = bounded(0, at_least=0)
    match_temperature: float = bounded(0.05, above=0)
    teacher_temperature: float = bounded(0.03, above=0)
    weight_match: float = bounded(0.1, at_least=0)
    weight_likeness: float = bounded(0.0, at_least=0)
    weight_reprojection: float = bounded(1.0, at_least=0)
    least_repeatability: float = bounded(0.5, at_least=0)
    least_score: float = bounded(0.03, at_least=0)
    weight_reward: float = bounded(0.0, at_least=0)
    wrong_cost: float = bounded(20.0, at_least=0)
    reward_points: int = bounded(256, at_least=1)
    reward_temperature: float = bounded(0.03, above=0)
    keep_statistics: bool = False
