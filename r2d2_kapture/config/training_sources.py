"""Sources of training pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.config.checks import require
from r2d2_kapture.coordinates import CameraOrigin


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """The sources of pairs, which are drawn equally often.

    Attributes:
        images: folder of photographs, for synthetic pairs.
        exclude: patterns of images to leave out, such as 'masks' or 'depth/**/*.png',
            relative to the folder of images; one without a slash fits at any depth, and
            a folder takes along what is in it.
        data_root: folder of the named sources, as kapture_r2d2_fetch writes it.
        sources: letters of the named sources used: W web images, A Aachen, S style
            transfer, F optical flow.
        depth_dataset: kapture dataset with poses and depth maps registered to images.
        sfm_model: COLMAP model, or kapture dataset with points and observations.
        sfm_images: folder that the image names of a COLMAP model are relative to.
        megadepth: folder of MegaDepth prepared by kapture_r2d2_megadepth; each scene is
            a separate source.
        train_scenes: text file of the scenes of MegaDepth to train on, one per line.
        camera_origin: pixel origin of principal points of kapture datasets: the
            ``center`` of the first pixel (kapture) or its ``corner`` (COLMAP); ``auto``
            takes the origin stated in files, else infers it from principal points at (W
            / 2, H / 2) and from names of COLMAP's import.
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
            "no source of pairs given, expected one or more of --images, --data-root, "
            "--depth-dataset, --sfm-model, --megadepth",
        )
        require(
            (self.megadepth is None) == (self.train_scenes is None),
            "--megadepth and --train-scenes: found one without the other, expected the "
            "folder and the list of its scenes to train on",
        )

    @property
    def has_others(self) -> bool:
        """Whether there are sources other than a folder of photographs."""
        others = (self.data_root, self.depth_dataset, self.sfm_model, self.megadepth)
        return any(path is not None for path in others)


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Validation data, in addition to a few photographs of ``--images``.

    The matching accuracy on sequences, if there are any, selects the best weights; else
    the loss of posed pairs; else the matching accuracy on photographs.

    Attributes:
        validation_dataset: kapture dataset with poses and depth maps for the validation
            loss, which then selects the best weights.
        validation_scenes: text file of the scenes of --megadepth for the validation
            loss, one per line.
        validation: folder of validation sequences in the layout of HPatches, which then
            select the best weights.
    """

    validation_dataset: Path | None = None
    validation_scenes: Path | None = None
    validation: Path | None = None

    @property
    def has_posed(self) -> bool:
        """Whether there are pairs for the validation loss."""
        return self.validation_dataset is not None or self.validation_scenes is not None
