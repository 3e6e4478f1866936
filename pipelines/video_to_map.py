"""A map from videos: sharp frames, sequential pairs with loops, and the page.

    python -m r2d2_kapture.pipelines.video_to_map --video walk.mp4 --every 0.5 \
        --output work

It is ``kapture_r2d2_import --video`` and kapture_r2d2_pipeline, and takes all flags of
the latter.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jsonargparse import Namespace

from r2d2_kapture.cli.common import add_settings, settings_from
from r2d2_kapture.cli.parser import INPUTS, CommandParser
from r2d2_kapture.cli.pipeline import Recipe, print_report, run_pipeline
from r2d2_kapture.cli.stage_flags import run_options
from r2d2_kapture.config.photographs import CameraConfig
from r2d2_kapture.config.settings import names_of
from r2d2_kapture.config.video import VideoConfig


def video_to_map(flags: Namespace) -> int:
    """From videos to a map: sharp frames, sequential pairs with loops."""
    config = dataclasses.replace(
        settings_from(flags, VideoConfig),
        camera_model=flags.photographs.camera_model,
        camera_params=flags.photographs.camera_params,
    )
    flags.photographs.camera_model = flags.photographs.camera_params = None
    from r2d2_kapture.stages.imports import video

    frames = flags.output / "frames"
    taken = video.run(
        config, video=flags.video, output=frames, options=run_options(flags)
    )
    print_report(taken)
    return run_pipeline(flags, mapping=frames, queries={}, earlier=[taken])


def add_video(parser: CommandParser) -> None:
    """Add the videos, and which of their frames are taken."""
    parser.group(INPUTS).add_argument(
        "--video",
        type=Path,
        metavar="FILE",
        nargs="+",
        required=True,
        help="videos of any format that FFmpeg reads; names differ",
    )
    cameras = names_of(CameraConfig)  # the pipeline has these flags
    add_settings(parser, VideoConfig, cameras, group="frames of the videos")


main = Recipe(
    name="video_to_map",
    flow=video_to_map,
    example="python -m r2d2_kapture.pipelines.video_to_map --video walk.mp4 "
    "--every 0.5 --output work",
    preset="video",
    add_inputs=add_video,
)

if __name__ == "__main__":
    raise SystemExit(main())
