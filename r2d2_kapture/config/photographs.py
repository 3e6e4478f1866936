"""Settings of a folder of photographs as an input."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from r2d2_kapture.config.cameras import MODEL_PARAMETERS, CameraMode, CameraModel
from r2d2_kapture.config.checks import Checked, bounded, require
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CameraConfig(Checked):
    """Settings of the cameras of images that come without a calibration.

    Attributes:
        camera_model: COLMAP's model of the photographs' cameras, such as PINHOLE or
            OPENCV; by default SIMPLE_RADIAL.
        camera_params: known parameters of --camera-model, separated by commas as COLMAP
            has them (PINHOLE: fx,fy,cx,cy), in pixels, (0, 0) the corner of the image;
            then all photographs must have the same size, and mapping keeps the
            parameters; by default from EXIF, or guessed, and refined.
    """

    camera_model: CameraModel | None = None
    camera_params: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.camera_params is not None:
            self._check_params()

    def _check_params(self) -> None:
        flag = f"--camera-params {self.camera_params}"
        require(
            self.camera_model is not None,
            f"{flag}: found no --camera-model, expected the model of these parameters",
        )
        try:
            values = self.params
        except ValueError as error:
            raise ConfigError(
                f"{flag}: expected numbers separated by commas ({error})"
            ) from error
        names = MODEL_PARAMETERS[self.camera_model or "PINHOLE"].split(",")
        require(
            len(values) == len(names),
            f"{flag}: found {len(values)} parameters, expected the {len(names)} of "
            f"{self.camera_model}: {','.join(names)}",
        )
        focal_lengths = [v for n, v in zip(names, values) if n.startswith("f")]
        require(
            all(map(math.isfinite, values)) and min(focal_lengths) > 0,
            f"{flag}: expected finite numbers and a focal length above 0 pixels",
        )

    @property
    def params(self) -> tuple[float, ...]:
        """The known parameters; none by default."""
        if self.camera_params is None:
            return ()
        return tuple(map(float, self.camera_params.split(",")))


@dataclass(frozen=True, kw_only=True)
class FolderConfig(CameraConfig):
    """Settings of a folder of photographs.

    Attributes:
        camera_mode: which photographs share a camera: ``single`` all of the same size;
            ``per-folder`` those of the same folder and size; ``per-image`` none;
            ``auto`` those of the same folder, size, EXIF camera and focal length, and
            none without EXIF data.
        exhaustive_limit: number of photographs up to which all are paired with each
            other; above it each is paired with the most similar ones.
    """

    camera_mode: CameraMode = "auto"
    exhaustive_limit: int = bounded(200, at_least=0)

    def pairing(self, asked: PairsConfig, images: int) -> PairsConfig:
        """The pair method of photographs: not exhaustive above the limit.

        Args:
            asked: the requested method.
            images: number of images of the map.
        """
        if asked.method == "exhaustive" and images > self.exhaustive_limit:
            return dataclasses.replace(asked, method="local")
        return asked
