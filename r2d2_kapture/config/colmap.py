"""Settings of the way from a folder of images to a COLMAP database."""

from __future__ import annotations

from dataclasses import dataclass

from r2d2_kapture.config.cameras import CameraMode
from r2d2_kapture.config.checks import require, require_choice
from r2d2_kapture.config.extract import ExtractConfig
from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.verify import VerifyConfig


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """How a folder of images is taken.

    Attributes:
        camera_mode: which images share a camera: ``single`` all of one size;
            ``per-folder`` those of one folder and size; ``per-image`` none; ``auto``
            those of one folder, size and EXIF camera with its focal length, and none
            that have no EXIF data.
        exhaustive_limit: number of images up to which all are paired with each other;
            above it each is paired with the --pairing.top_k that look most like it.
    """

    camera_mode: CameraMode = "auto"
    exhaustive_limit: int = 200

    def __post_init__(self) -> None:
        require_choice("--camera-mode", self.camera_mode, CameraMode)
        require(
            self.exhaustive_limit >= 0,
            f"--exhaustive-limit: found {self.exhaustive_limit}, expected 0 or more",
        )


@dataclass(frozen=True, kw_only=True)
class ColmapConfig:
    """One section a stage.

    Attributes:
        folder: cameras of the images, and when to pair all of them.
        extract: of all images.
        pairing: which images are matched; ``exhaustive`` holds up to the folder's
            limit.
        match: of the pairs.
        verify: geometry of the pairs.
        map: the sparse model, where one is asked for.
    """

    folder: FolderConfig = FolderConfig()
    extract: ExtractConfig = ExtractConfig()
    pairing: PairsConfig = PairsConfig()
    match: MatchConfig = MatchConfig()
    verify: VerifyConfig = VerifyConfig()
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
            self.pairing.method in ("exhaustive", "sequential", "local"),
            f"--pairing.method: found {self.pairing.method}, expected exhaustive, "
            "sequential or local, or a list by --pairs",
        )
