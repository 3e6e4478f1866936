"""What a whole extractor of one image size searches."""

from __future__ import annotations

from dataclasses import dataclass

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.export_model import Size
from r2d2_kapture.config.extract import R2D2Config
from r2d2_kapture.core.pyramid import Level, plan_levels


@dataclass(frozen=True, kw_only=True)
class ExtractorPlan:
    """Sizes and settings of an extractor.

    Attributes:
        size: of the image.
        levels: of its pyramid, from the largest; those that are not searched too.
        stride: pixels of which the sides of a map are multiples.
        settings: of scales and keypoints.
    """

    size: Size
    levels: tuple[Level, ...]
    stride: int
    settings: R2D2Config

    @staticmethod
    def of(size: Size, stride: int, settings: R2D2Config) -> ExtractorPlan:
        """Plan an extractor.

        Raises:
            ConfigError: no level is large enough, or they have fewer places than
                keypoints are wanted.
        """
        plan = ExtractorPlan(
            size=size,
            levels=plan_levels(size.height, size.width, settings),
            stride=stride,
            settings=settings,
        )
        places = sum(plan.map_size(level).count for level in plan.searched)
        require(
            places > 0,
            f"--size {size.text}: found no level of {stride} or more pixels a side, "
            "expected a larger size",
        )
        require(
            1 <= settings.top_k <= places,
            f"--top-k {settings.top_k}: found {places} pixels on all levels of --size "
            f"{size.text}, expected 1 to {places}",
        )
        return plan

    @property
    def searched(self) -> list[Level]:
        """The levels with an output."""
        return [level for level in self.levels if self.has_output(level)]

    def has_output(self, level: Level) -> bool:
        """Whether keypoints are searched on a level."""
        return level.searched and min(level.height, level.width) >= self.stride

    def map_size(self, level: Level) -> Size:
        """Of the maps of a level."""
        return Size(height=level.height, width=level.width).cells(self.stride)
