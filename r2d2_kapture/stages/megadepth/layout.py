"""The published layout of MegaDepth, and that of the prepared files.

Both downloads are at www.cs.cornell.edu/projects/megadepth:

    phoenix/S6/zl548/MegaDepth_v1/<scene>/dense<model>/depths/<image>.h5
    MegaDepth_v1_SfM/<scene>/images/<image>
    MegaDepth_v1_SfM/<scene>/sparse/manhattan/<model>/{cameras,images,points3D}.bin

Prepared files of a scene's model k are below one output folder:

    Undistorted_SfM/<scene>/         of model 0; <scene>.<k> of others, and of all
                                     of a scene whose own name ends as in 0022.1
    scene_info/<scene>.<k>.npz
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.stages.megadepth.scene_info import SCENE_NAME, is_scene_name
from r2d2_kapture.types import Failure

DEPTH_FOLDER = PurePosixPath("phoenix/S6/zl548/MegaDepth_v1")
SFM_FOLDER = PurePosixPath("MegaDepth_v1_SfM")
MODELS_FOLDER = PurePosixPath("sparse/manhattan")
DENSE = "dense"
UNDISTORTED_FOLDER = "Undistorted_SfM"
SCENE_INFO_FOLDER = "scene_info"
WAY_OUT = "download it by hand from www.cs.cornell.edu/projects/megadepth"


@dataclass(frozen=True, kw_only=True)
class SceneModel:
    """One SfM model of a scene: its inputs and outputs.

    Attributes:
        scene: name of the scene, as ``0022``.
        number: of the model within the scene.
        sfm: folder of the scene below that of the SfM models.
        depths: folder of the depth maps of the model.
        output: folder of all outputs.
    """

    scene: str
    number: int
    sfm: Path
    depths: Path
    output: Path

    @property
    def name(self) -> str:
        """Name of the model in reports."""
        return f"{self.scene}.{self.number}"

    @property
    def images(self) -> Path:
        """Folder of the original photographs."""
        return self.sfm / "images"

    @property
    def reconstruction(self) -> Path:
        """Folder of the COLMAP model."""
        return self.sfm / MODELS_FOLDER / str(self.number)

    @property
    def undistorted(self) -> Path:
        """Folder of the undistorted images and their model."""
        # model 0 is where D2-Net expects it, unless the name looks like another model
        numbered = PurePosixPath(self.scene).suffix[1:].isdecimal()
        folder = self.name if self.number or numbered else self.scene
        return self.output / UNDISTORTED_FOLDER / folder

    @property
    def scene_info(self) -> Path:
        """The scene info that training reads."""
        return self.output / SCENE_INFO_FOLDER / f"{self.name}.npz"

    def depth_path(self, image_name: str) -> Path:
        """Path of the depth map of an image."""
        return self.depths / PurePosixPath(image_name).with_suffix(".h5")


def find_root(given: Path, inside: PurePosixPath, flag: str, what: str) -> Path:
    """Find the folder of the scenes of a download.

    Args:
        given: the folder, or the one that the download was unpacked into.
        inside: its path relative to the latter.
        flag: name of the flag, for messages.
        what: description of its content, for messages.

    Raises:
        DatasetError: there is no such folder, or it is empty.
    """
    nested = given / inside
    root = nested if nested.is_dir() else given
    if not root.is_dir():
        raise DatasetError(
            f"{flag} {given}: not found, expected {what} ({inside.name}); {WAY_OUT}"
        )
    if not any(path.is_dir() for path in root.iterdir()):
        raise DatasetError(
            f"{flag} {root}: found no scene, expected {what} as {inside}/<scene>; "
            f"{WAY_OUT}"
        )
    return root


def find_models(
    depth_root: Path, sfm_root: Path, output: Path, scenes: Sequence[str] | None
) -> tuple[list[SceneModel], list[Failure]]:
    """Find the models that can be prepared.

    Args:
        depth_root: folder of the scenes' depth maps, see find_root.
        sfm_root: folder of the scenes' SfM models.
        output: folder of all outputs.
        scenes: names; None takes all scenes with depth maps.

    Returns:
        The models in order, and failures with the way out.
    """
    if scenes is None:
        scenes = sorted(path.name for path in depth_root.iterdir() if path.is_dir())
    models: list[SceneModel] = []
    missing: list[Failure] = []
    for scene in scenes:
        if not is_scene_name(scene):
            reason = f"expected {SCENE_NAME}; rename its folders"
            missing.append(Failure(name=repr(scene), reason=reason))
            continue
        depths, sfm = depth_root / scene, sfm_root / scene
        numbers = _model_numbers(depths)
        if not numbers:
            found = f"no {DENSE}<k>/depths in {depths}, expected its depth maps"
            missing.append(Failure(name=scene, reason=f"found {found}; {WAY_OUT}"))
        elif not sfm.is_dir():
            reason = f"{sfm} not found, expected its SfM models; {WAY_OUT}"
            missing.append(Failure(name=scene, reason=reason))
        else:
            models += [
                SceneModel(
                    scene=scene,
                    number=number,
                    sfm=sfm,
                    depths=depths / f"{DENSE}{number}" / "depths",
                    output=output,
                )
                for number in numbers
            ]
    return models, missing


def check_inputs(model: SceneModel) -> None:
    """Refuse a model that lacks its images or its reconstruction.

    Raises:
        DatasetError: naming what is missing.
    """
    for folder, what in (
        (model.images, "the photographs"),
        (model.reconstruction, "the SfM model of its depth maps"),
    ):
        if not folder.is_dir():
            raise DatasetError(f"{folder} not found, expected {what}; {WAY_OUT}")


def _model_numbers(depths: Path) -> list[int]:
    """Numbers of the models of a scene that have depth maps."""
    numbers = (
        path.parent.name.removeprefix(DENSE)
        for path in depths.glob(f"{DENSE}*/depths")
        if path.is_dir()
    )
    return sorted(int(number) for number in numbers if number.isdecimal())
