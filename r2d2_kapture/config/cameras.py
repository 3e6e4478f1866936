"""Camera models of photographs, and which images share a camera."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

CameraMode = Literal["auto", "single", "per-folder", "per-image"]

CameraModel = Literal[
    "SIMPLE_PINHOLE",
    "PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "OPENCV_FISHEYE",
    "FULL_OPENCV",
    "FOV",
    "SIMPLE_RADIAL_FISHEYE",
    "RADIAL_FISHEYE",
    "THIN_PRISM_FISHEYE",
]
"""Models of both kapture and COLMAP."""

MODEL_PARAMETERS: Mapping[CameraModel, str] = {
    "SIMPLE_PINHOLE": "f,cx,cy",
    "PINHOLE": "fx,fy,cx,cy",
    "SIMPLE_RADIAL": "f,cx,cy,k",
    "RADIAL": "f,cx,cy,k1,k2",
    "OPENCV": "fx,fy,cx,cy,k1,k2,p1,p2",
    "OPENCV_FISHEYE": "fx,fy,cx,cy,k1,k2,k3,k4",
    "FULL_OPENCV": "fx,fy,cx,cy,k1,k2,p1,p2,k3,k4,k5,k6",
    "FOV": "fx,fy,cx,cy,omega",
    "SIMPLE_RADIAL_FISHEYE": "f,cx,cy,k",
    "RADIAL_FISHEYE": "f,cx,cy,k1,k2",
    "THIN_PRISM_FISHEYE": "fx,fy,cx,cy,k1,k2,p1,p2,k3,k4,sx1,sy1",
}
"""Names of the parameters of each model, in COLMAP's order."""
