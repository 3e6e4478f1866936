"""kapture_r2d2_megadepth: preparation of MegaDepth for training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.cli.common import (
    add_settings,
    finish,
    make_parser,
    run_command,
    settings_from,
)
from r2d2_kapture.config.megadepth import MegadepthConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    parser = make_parser(
        "kapture_r2d2_megadepth",
        "Prepare MegaDepth for training: undistort its SfM models, and compute the "
        "overlap of images. Download both parts by hand from "
        "www.cs.cornell.edu/projects/megadepth and unpack them: MegaDepth v1 (depth "
        "maps) and MegaDepth v1 SfM models. Scenes are prepared in parallel; an "
        "interrupted run resumes when the command is run again. Train on the output: "
        "kapture_r2d2_train --megadepth OUTPUT --train-scenes FILE.",
        "kapture_r2d2_megadepth --depth-root MegaDepth_v1 --sfm-root MegaDepth_v1_SfM "
        "--output megadepth",
    )
    parser.group("inputs").add_argument(
        "--depth-root",
        type=Path,
        metavar="DIR",
        required=True,
        help="depth maps: .../phoenix/S6/zl548/MegaDepth_v1, or the folder that it was "
        "unpacked into",
    )
    parser.group("inputs").add_argument(
        "--sfm-root",
        type=Path,
        metavar="DIR",
        required=True,
        help="SfM models: .../MegaDepth_v1_SfM, or the folder that it was unpacked "
        "into",
    )
    parser.group("outputs").add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        required=True,
        help="folder for Undistorted_SfM/<scene>, scene_info/<scene>.<model>.npz, and "
        "scene_info/<scene>.<model>.json, which lists images left out with the "
        "reasons",
    )
    parser.group("inputs").add_argument(
        "--scenes",
        type=Path | None,
        metavar="FILE",
        help="text file of the scenes to prepare, one name per line, # for comments; "
        "by default all scenes with depth maps",
    )
    add_settings(parser, MegadepthConfig, group="preparation")
    parser.group("run").add_argument(
        "--workers",
        type=int,
        metavar="N",
        default=2,
        help="processes; each prepares one model at a time and needs up to a few GB",
    )
    parser.group("run").add_argument(
        "--force", action="store_true", help="redo finished models"
    )
    parser.group("run").add_argument(
        "--strict", action="store_true", help="stop at the first model that fails"
    )
    parser.group("run").add_argument(
        "--quiet", action="store_true", help="show no progress"
    )
    namespace = parser.parse_args(arguments)
    if namespace.workers < 1:
        raise ConfigError(f"--workers: found {namespace.workers}, expected 1 or more")
    config = settings_from(namespace, MegadepthConfig)
    from r2d2_kapture.stages import megadepth
    from r2d2_kapture.stages.megadepth.scene_info import read_scene_list

    scenes = None if namespace.scenes is None else read_scene_list(namespace.scenes)
    report = megadepth.run(
        config,
        depth_root=namespace.depth_root,
        sfm_root=namespace.sfm_root,
        output=namespace.output,
        scenes=scenes,
        options=RunOptions(
            workers=namespace.workers,
            force=namespace.force,
            strict=namespace.strict,
            progress=False if namespace.quiet else None,
        ),
    )
    return finish(report)


if __name__ == "__main__":
    raise SystemExit(main())
