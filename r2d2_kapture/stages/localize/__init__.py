"""Localization: matches of queries with map images in, camera poses out."""

from r2d2_kapture.stages.localize.cameras import QueryFrame, QueryImage, with_exif
from r2d2_kapture.stages.localize.frames import gather_evidence, localize_frame
from r2d2_kapture.stages.localize.last_pose import Helpers
from r2d2_kapture.stages.localize.matches import QueryMatches
from r2d2_kapture.stages.localize.missing_inputs import QueryInputs
from r2d2_kapture.stages.localize.output import CONTENTS
from r2d2_kapture.stages.localize.point_search import PointSearch, is_searched
from r2d2_kapture.stages.localize.pose_estimation import CREDIBLE
from r2d2_kapture.stages.localize.positions import POSITIONS_NAME, Places
from r2d2_kapture.stages.localize.registered import MODELS, register
from r2d2_kapture.stages.localize.registration import Registrar
from r2d2_kapture.stages.localize.results import (
    POSES_NAME,
    QueryResult,
    read_localized,
    read_reason,
    result_path,
)
from r2d2_kapture.stages.localize.stage import run

__all__ = [
    "CONTENTS",
    "CREDIBLE",
    "Helpers",
    "MODELS",
    "POSES_NAME",
    "POSITIONS_NAME",
    "Places",
    "PointSearch",
    "QueryFrame",
    "QueryImage",
    "QueryInputs",
    "QueryMatches",
    "QueryResult",
    "Registrar",
    "gather_evidence",
    "is_searched",
    "localize_frame",
    "read_localized",
    "read_reason",
    "register",
    "result_path",
    "run",
    "with_exif",
]
