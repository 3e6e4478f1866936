"""kapture_r2d2_export: features of a kapture dataset for other tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.cli.common import finish, make_parser, run_command
from r2d2_kapture.cli.parser import value_name
from r2d2_kapture.cli.stage_flags import add_origin_flags, add_type_flags
from r2d2_kapture.config.cameras import CameraMode
from r2d2_kapture.config.extract import ExportFormat

DEFAULT_OUTPUTS = {
    "colmap-db": "colmap.db",
    "h5": "features.h5",
    "colmap-text": "colmap_text",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    parser = make_parser(
        "kapture_r2d2_export",
        "Export the features of a kapture dataset to a COLMAP 4 database, to hloc's "
        "HDF5 layout, or to COLMAP's text files.",
        "kapture_r2d2_export --kapture-root mapping --to colmap-db --output colmap.db",
    )
    parser.group("inputs").add_argument(
        "--kapture-root",
        type=Path,
        metavar="DIR",
        required=True,
        help="folder of a kapture dataset",
    )
    parser.group("outputs").add_argument(
        "--to",
        type=ExportFormat,
        metavar=value_name(ExportFormat),
        required=True,
        help="colmap-db: cameras, rigs, frames, images, keypoints in COLMAP's pixel "
        "origin, matches; h5: features file of hloc; colmap-text: one file per image",
    )
    parser.group("outputs").add_argument(
        "--output",
        type=Path | None,
        metavar="PATH",
        help="file, or folder for colmap-text; by default colmap.db, features.h5 or "
        "colmap_text in the dataset",
    )
    add_type_flags(parser, "keypoints", "descriptors")
    add_origin_flags(parser, "camera_origin", "keypoint_origin")
    parser.group("outputs").add_argument(
        "--camera-mode",
        type=CameraMode,
        metavar=value_name(CameraMode),
        default="auto",
        help="for colmap-db, which images of unknown cameras (UNKNOWN_CAMERA) share "
        "one: auto those of the same sensor of the dataset; single all of the same "
        "size; per-folder those of the same folder and size; per-image none; known "
        "cameras, and those of rigs, are never merged",
    )
    parser.group("run").add_argument(
        "--force", action="store_true", help="overwrite an existing output"
    )
    parser.group("run").add_argument(
        "--quiet", action="store_true", help="show no progress"
    )
    namespace = parser.parse_args(arguments)
    from r2d2_kapture.stages.extract import export

    report = export.run(
        kapture_root=namespace.kapture_root,
        to=namespace.to,
        output=namespace.output
        or namespace.kapture_root / DEFAULT_OUTPUTS[namespace.to],
        keypoints_type=namespace.keypoints_type,
        descriptors_type=namespace.descriptors_type,
        camera_origin=namespace.camera_origin,
        keypoint_origin=namespace.keypoint_origin,
        camera_mode=namespace.camera_mode,
        force=namespace.force,
        progress=False if namespace.quiet else None,
    )
    return finish(report)


if __name__ == "__main__":
    raise SystemExit(main())
