"""Where the pictures of training are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.config.checks import require
from r2d2_kapture.coordinates import CameraOrigin


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """What to make pairs of: any of these, each drawn equally often.

    Attributes:
        images: folder of photographs, for synthetic pairs.
        data_root: folder of the named sources, as kapture_r2d2_fetch lays them out.
        sources: letters of the named sources used: W web images, A Aachen, S style
            transfer, F optical flow.
        depth_dataset: kapture dataset with poses and depth maps registered to images.
        sfm_model: COLMAP model, or kapture dataset with points and observations.
        sfm_images: folder that the image names of a COLMAP model are relative to.
        camera_origin: where the principal points of kapture datasets count from:
            ``center`` of the first pixel, or its ``corner``; ``auto`` looks for
            (W / 2, H / 2).
    """

    images: Path | None = None
    data_root: Path | None = None
    sources: str = "WASF"
    depth_dataset: Path | None = None
    sfm_model: Path | None = None
    sfm_images: Path | None = None
    camera_origin: CameraOrigin = "auto"

    def __post_init__(self) -> None:
        given = (self.images, self.data_root, self.depth_dataset, self.sfm_model)
        require(
            any(path is not None for path in given),
            "no pictures given, expected one or more of --images, --data-root, "
            "--depth-dataset, --sfm-model",
        )
