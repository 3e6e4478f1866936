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
        exclude: patterns of what to leave out of that folder, relative to it; one
            without a slash fits at any depth.
        data_root: folder of the named sources, as kapture_r2d2_fetch lays them out.
        sources: letters of the named sources used: W web images, A Aachen, S style
            transfer, F optical flow.
        depth_dataset: kapture dataset with poses and depth maps registered to images.
        sfm_model: COLMAP model, or kapture dataset with points and observations.
        sfm_images: folder that the image names of a COLMAP model are relative to.
        megadepth: folder of MegaDepth that kapture_r2d2_megadepth has prepared; each
            scene is a source of its own.
        train_scenes: text file of the scenes of MegaDepth to train on, one per line.
        camera_origin: where principal points of kapture datasets count from: the
            ``center`` of the first pixel (kapture) or its ``corner`` (COLMAP); ``auto``
            takes what files say, and else looks for (W / 2, H / 2) and for names of
            COLMAP's import.
    """

    images: Path | None = None
    exclude: tuple[str, ...] = ()
    data_root: Path | None = None
    sources: str = "WASF"
    depth_dataset: Path | None = None
    sfm_model: Path | None = None
    sfm_images: Path | None = None
    megadepth: Path | None = None
    train_scenes: Path | None = None
    camera_origin: CameraOrigin = "auto"

    def __post_init__(self) -> None:
        require(
            self.has_others or self.images is not None,
            "no pictures given, expected one or more of --images, --data-root, "
            "--depth-dataset, --sfm-model, --megadepth",
        )
        require(
            (self.megadepth is None) == (self.train_scenes is None),
            "--megadepth and --train-scenes: found one without the other, expected the "
            "folder and the list of its scenes to train on",
        )

    @property
    def has_others(self) -> bool:
        """Whether there are sources besides a folder of photographs."""
        others = (self.data_root, self.depth_dataset, self.sfm_model, self.megadepth)
        return any(path is not None for path in others)


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """What to validate on, besides a few photographs of ``--images``.

    The matching accuracy on sequences, where there are any, chooses the best weights;
    else the loss of posed pairs; else the matching accuracy on photographs.

    Attributes:
        validation_dataset: kapture dataset with poses and depth maps to validate on, by
            the loss of its pairs; it then chooses the best weights.
        validation_scenes: text file of the scenes of --megadepth to validate on, one
            per line, likewise.
        validation: folder of sequences in the layout of HPatches to validate on as
            well; it then chooses the best weights.
    """

    validation_dataset: Path | None = None
    validation_scenes: Path | None = None
    validation: Path | None = None

    @property
    def has_posed(self) -> bool:
        """Whether there are pairs to validate on by their loss."""
        return self.validation_dataset is not None or self.validation_scenes is not None
