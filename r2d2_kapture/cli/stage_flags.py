"""Flags shared by the commands of single stages."""

from __future__ import annotations

import dataclasses
import os

from jsonargparse import Namespace

from r2d2_kapture.cli.common import add_settings
from r2d2_kapture.cli.parser import INPUTS, CommandParser
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.errors import ConfigError

REDO = "redo finished work, and replace what was made with other settings"


def add_stage_flags(parser: CommandParser, item: str, force: str = REDO) -> None:
    """Add the options of a run, which do not affect results.

    Args:
        parser: of the command.
        item: the items that the stage processes, such as ``pair``.
        force: help of ``--force``.
    """
    parser.group("run").add_argument(
        "--workers",
        type=int,
        metavar="N",
        default=os.cpu_count() or 1,
        help="threads that work in parallel; results do not depend on it",
    )
    parser.group("run").add_argument(
        "--strict", action="store_true", help=f"stop at the first {item} that fails"
    )
    add_run_flags(parser, force)


def add_origin_flags(parser: CommandParser, *names: str) -> None:
    """Add --camera-origin or --keypoint-origin, as kapture_r2d2_verify has them."""
    fields = {field.name for field in dataclasses.fields(VerifyConfig)}
    add_settings(parser, VerifyConfig, taken=fields.difference(names), group=INPUTS)


def add_type_flags(parser: CommandParser, *kinds: str) -> None:
    """Add --keypoints-type or the like: which features, where there are several."""
    for kind in kinds:
        parser.group(INPUTS).add_argument(
            f"--{kind}-type",
            type=str | None,
            metavar="NAME",
            help="by default the only existing one",
        )


def add_run_flags(parser: CommandParser, force: str = REDO) -> None:
    """Add the options of a stage with a single output."""
    parser.group("run").add_argument("--force", action="store_true", help=force)
    parser.group("run").add_argument(
        "--quiet", action="store_true", help="show no progress"
    )


def stage_options(namespace: Namespace) -> RunOptions:
    """Options of the run from the flags.

    Raises:
        ConfigError: fewer than one worker.
    """
    if namespace.workers < 1:
        raise ConfigError(f"--workers: found {namespace.workers}, expected 1 or more")
    return dataclasses.replace(
        run_options(namespace), workers=namespace.workers, strict=namespace.strict
    )


def run_options(namespace: Namespace) -> RunOptions:
    """Options of the run from the flags of ``add_run_flags``."""
    return RunOptions(
        force=namespace.force, progress=False if namespace.quiet else None
    )
