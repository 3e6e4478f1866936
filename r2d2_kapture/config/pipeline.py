"""Settings of the whole pipeline: those of its stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from r2d2_kapture.config.evaluate import EvaluateConfig
from r2d2_kapture.config.extract import ExtractConfig
from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.photographs import FolderConfig
from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.config.settings import names_of
from r2d2_kapture.config.verify import VerifyConfig

OF_GIVEN_MODEL: Mapping[str, Mapping[str, Any]] = {
    "mapping_pairs": {"method": "covisibility"},
    "verify": {"geometry": "known_poses"},
}
"""Defaults, by section, that differ where a model is given."""


@dataclass(frozen=True, kw_only=True)
class RefineOnceConfig(RefineConfig):
    """Settings of refinement as a part of a command, which may leave it out.

    Attributes:
        use: ``on`` refines the keypoints of the map before it is made, and those of
            queries before their last pose; ``off`` leaves them where they were found,
            and estimates poses of queries once.
    """

    use: bool = True

    @property
    def of_stage(self) -> RefineConfig:
        """The settings of the stage alone."""
        return RefineConfig(
            **{name: getattr(self, name) for name in names_of(RefineConfig)}
        )


@dataclass(frozen=True, kw_only=True)
class RefineStepConfig(RefineOnceConfig):
    """Settings of refinement where a map follows, which may be made again.

    Attributes:
        again: refine a second time, with the points, poses and surfaces of the map, and
            make the map again: as much time again; not with --map.points-from depth.
    """

    again: bool = False


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """One section for each stage.

    Attributes:
        photographs: cameras of a folder of photographs, and when to pair all of them.
        extract: features of all images; None uses existing ones.
        mapping_pairs: which mapping images are matched with each other.
        query_pairs: which mapping images a query is matched with.
        match: of both kinds of pairs.
        verify: geometry of the mapping pairs.
        refine: of the keypoints of verified matches, and of queries.
        map: from verified matches to points.
        localize: poses of the queries.
        evaluate: against true poses, if a query dataset has them.
    """

    photographs: FolderConfig = FolderConfig()
    extract: ExtractConfig | None = None
    mapping_pairs: PairsConfig = PairsConfig()
    query_pairs: PairsConfig = PairsConfig()
    match: MatchConfig = MatchConfig()
    verify: VerifyConfig = VerifyConfig()
    refine: RefineStepConfig = RefineStepConfig()
    map: MapConfig = MapConfig()
    localize: LocalizeConfig = LocalizeConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @property
    def refines_again(self) -> bool:
        """Whether keypoints are refined a second time, with the map."""
        refine, triangulated = self.refine, self.map.points_from == "triangulation"
        return refine.use and refine.again and triangulated

    @property
    def without_refinement(self) -> PipelineConfig:
        """The settings of a pipeline as it was before there was refinement."""
        once = dataclasses.replace(self.localize, second_pass="off", refine="off")
        return dataclasses.replace(
            self, refine=dataclasses.replace(self.refine, use=False), localize=once
        )
