"""Settings from a folder of images to a COLMAP database."""

from __future__ import annotations

from dataclasses import dataclass

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.extract import ExtractConfig
from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.photographs import FolderConfig
from r2d2_kapture.config.pipeline import RefineOnceConfig
from r2d2_kapture.config.verify import VerifyConfig


@dataclass(frozen=True, kw_only=True)
class ColmapConfig:
    """One section for each stage.

    Attributes:
        folder: cameras of the images, and when to pair all of them.
        extract: of all images.
        pairing: which images are matched; ``exhaustive`` applies up to the folder's
            limit.
        match: of the pairs.
        verify: geometry of the pairs.
        refine: of the keypoints of verified matches.
        map: the sparse model, if requested.
    """

    folder: FolderConfig = FolderConfig()
    extract: ExtractConfig = ExtractConfig()
    pairing: PairsConfig = PairsConfig()
    match: MatchConfig = MatchConfig()
    verify: VerifyConfig = VerifyConfig()
    refine: RefineOnceConfig = RefineOnceConfig()
    map: MapConfig = MapConfig()

    def __post_init__(self) -> None:
        require(
            self.verify.geometry == "estimate",
            "--verify.geometry: found known_poses, expected estimate: a database has "
            "no poses",
        )
        require(
            self.map.method != "triangulate",
            "--map.method: found triangulate, expected incremental or global: a "
            "database has no poses",
        )
        require(
            self.pairing.method
            in ("exhaustive", "sequential", "gnss", "local", "lowres"),
            f"--pairing.method: found {self.pairing.method}, expected exhaustive, "
            "sequential, gnss, local or lowres, or a list by --pairs",
        )
