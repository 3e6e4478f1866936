"""Settings of the view of a pair."""

from __future__ import annotations

from dataclasses import dataclass

from r2d2_kapture.config.checks import require


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """Settings of the cameras of two images.

    Attributes:
        exif: take focal lengths from the EXIF data of the photographs; with those of
            both, an essential matrix is estimated too.
        camera_model: COLMAP's model of both cameras (``PINHOLE``, ``OPENCV``, ...);
            with --camera-params.
        camera_params: parameters of both cameras, numbers separated by commas in
            COLMAP's order, in pixels from the corner of the first pixel.
    """

    exif: bool = True
    camera_model: str | None = None
    camera_params: str | None = None

    def __post_init__(self) -> None:
        require(
            (self.camera_model is None) == (self.camera_params is None),
            "--camera-model, --camera-params: found one of them, expected both or none",
        )
