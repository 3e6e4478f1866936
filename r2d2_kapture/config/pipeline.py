"""Settings of the whole pipeline: those of its stages."""

from __future__ import annotations

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
from r2d2_kapture.config.verify import VerifyConfig

OF_GIVEN_MODEL: Mapping[str, Mapping[str, Any]] = {
    "mapping_pairs": {"method": "covisibility"},
    "verify": {"geometry": "known_poses"},
}
"""Defaults, by section, that differ where a model is given."""


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
    map: MapConfig = MapConfig()
    localize: LocalizeConfig = LocalizeConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
