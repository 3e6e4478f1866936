"""kapture_r2d2_train_view: pictures of training pairs."""

from __future__ import annotations

import dataclasses
from argparse import SUPPRESS
from collections.abc import Sequence
from pathlib import Path
from typing import get_type_hints

from r2d2_kapture.cli.common import (
    add_settings,
    finish,
    make_parser,
    resolve_presets,
    run_command,
    settings_from,
)
from r2d2_kapture.cli.parser import CommandParser, value_name
from r2d2_kapture.cli.source_flags import add_source_flags, source_config
from r2d2_kapture.config.d2net_training import D2NetTrainingConfig
from r2d2_kapture.config.extract import Preprocessing
from r2d2_kapture.config.losses import LossConfig
from r2d2_kapture.config.megadepth import MegadepthPairs
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.train import NetworkConfig, OptimizationConfig, PaceConfig
from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.errors import ConfigError

PRESETS = "train"
SHOWN = ("seed", "batch_size", "preprocessing")
"""Settings of training that have their own flags here."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    parser = make_parser(
        "kapture_r2d2_train_view",
        "Draw the pairs of crops of a training run with their true correspondences, "
        "and with --model the maps of the network: reliability and repeatability of "
        "R2D2, soft detections of D2-Net.",
        "kapture_r2d2_train_view --config r2d2 --images photos --output pairs --step 0",
    )
    parser.group("outputs").add_argument(
        "--output", type=Path | None, metavar="DIR", help="folder of the pictures"
    )
    parser.group("pictures").add_argument(
        "--step",
        type=int,
        metavar="N",
        default=0,
        help="step of the run; it determines the difficulty",
    )
    parser.group("pictures").add_argument(
        "--seed", type=int, metavar="N", default=0, help="of the run"
    )
    parser.group("pictures").add_argument(
        "--batch-size", type=int, metavar="N", default=8, help="number of pairs drawn"
    )
    parser.group("pictures").add_argument(
        "--model",
        type=str | None,
        metavar="MODEL",
        help="checkpoint whose maps are drawn; none by default",
    )
    parser.group("pictures").add_argument(
        "--preprocessing",
        type=Preprocessing | None,
        metavar=value_name(Preprocessing),
        help="of the images, as the weights of a D2-Net expect it: caffe or torch; by "
        "default what the checkpoint states, else caffe",
    )
    parser.group("run").add_argument(
        "--force", action="store_true", help="redraw existing pictures"
    )
    parser.group("run").add_argument(
        "--quiet", action="store_true", help="show no progress"
    )
    add_source_flags(parser)
    add_settings(parser, PairConfig, group="pairs of photographs")
    add_settings(parser, MegadepthPairs, group="pairs of MegaDepth")
    _accept_other_settings(parser)
    namespace = parser.parse_args(resolve_presets(arguments, PRESETS))
    if namespace.output is None:
        raise ConfigError("--output: none given, expected a folder for the pictures")
    config, inputs = settings_from(namespace, PairConfig), source_config(namespace)
    selection = settings_from(namespace, MegadepthPairs)
    from r2d2_kapture.models.checkpoints import load_checkpoint
    from r2d2_kapture.stages.train import view as train_view

    report = train_view.run(
        config,
        inputs=inputs,
        selection=selection,
        output=namespace.output,
        step=namespace.step,
        count=namespace.batch_size,
        seed=namespace.seed,
        checkpoint=load_checkpoint(namespace.model) if namespace.model else None,
        preprocessing=namespace.preprocessing,
        options=RunOptions(
            force=namespace.force, progress=False if namespace.quiet else None
        ),
    )
    return finish(report)


def _accept_other_settings(parser: CommandParser) -> None:
    """Accept presets and settings files of training; hide settings without effect."""
    others: tuple[type, ...] = (
        NetworkConfig,
        OptimizationConfig,
        PaceConfig,
        LossConfig,
        D2NetTrainingConfig,
    )
    for settings in others:
        types = get_type_hints(settings)
        for field in dataclasses.fields(settings):
            if field.name not in SHOWN:
                parser.add_argument(
                    "--" + field.name.replace("_", "-"),
                    type=types[field.name],
                    default=field.default,
                    help=SUPPRESS,
                )


if __name__ == "__main__":
    raise SystemExit(main())
