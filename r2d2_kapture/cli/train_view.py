"""kapture_r2d2_train_view: pictures of training pairs."""

from __future__ import annotations

from argparse import SUPPRESS
from collections.abc import Collection, Sequence

from r2d2_kapture.cli.common import (
    add_settings,
    finish,
    make_parser,
    resolve_presets,
    run_command,
    settings_from,
)
from r2d2_kapture.cli.parser import INPUTS, CommandParser
from r2d2_kapture.cli.signatures import read_signature, setting_parameters
from r2d2_kapture.cli.stage_flags import (
    add_parameters,
    add_run_flags,
    parameter_values,
    require_given,
    run_options,
)
from r2d2_kapture.config.d2net_training import D2NetTrainingConfig
from r2d2_kapture.config.losses import LossConfig
from r2d2_kapture.config.megadepth import MegadepthPairs
from r2d2_kapture.config.train import NetworkConfig, OptimizationConfig, PaceConfig
from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.config.training_sources import SourceConfig

PRESETS = "train"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    description, parameters = read_signature("r2d2_kapture.stages.train.view")
    parser = make_parser(
        "kapture_r2d2_train_view",
        description,
        "kapture_r2d2_train_view --config r2d2 --images photos --output pairs --step 0",
    )
    pictures = [item.name for item in parameters if item.name != "output"]
    add_parameters(parser, parameters, {"pictures": pictures}, in_files=True)
    parser.group("pictures").add_argument(
        "--model",
        type=str | None,
        metavar="MODEL",
        help="checkpoint whose maps are drawn; none by default",
    )
    add_run_flags(parser, force="redraw existing pictures")
    add_settings(parser, SourceConfig, group=INPUTS)
    add_settings(parser, PairConfig, group="pairs of photographs")
    add_settings(parser, MegadepthPairs, group="pairs of MegaDepth")
    _accept_other_settings(parser, [item.name for item in parameters])
    namespace = parser.parse_args(resolve_presets(arguments, PRESETS))
    require_given(namespace, parameters)
    config, inputs = settings_from(namespace, PairConfig), settings_from(
        namespace, SourceConfig
    )
    selection = settings_from(namespace, MegadepthPairs)
    from r2d2_kapture.models.checkpoints import load_checkpoint
    from r2d2_kapture.stages.train import view

    report = view.run(
        config,
        inputs=inputs,
        selection=selection,
        checkpoint=load_checkpoint(namespace.model) if namespace.model else None,
        **parameter_values(namespace, parameters),
        options=run_options(namespace),
    )
    return finish(report)


def _accept_other_settings(parser: CommandParser, taken: Collection[str]) -> None:
    """Accept presets and settings files of training; hide settings without effect."""
    others: tuple[type, ...] = (
        NetworkConfig,
        OptimizationConfig,
        PaceConfig,
        LossConfig,
        D2NetTrainingConfig,
    )
    for settings in others:
        for item in setting_parameters(settings):
            if item.name not in taken:
                parser.add_argument(
                    f"--{item.flag}",
                    type=item.kind,
                    default=item.default,
                    help=SUPPRESS,
                )


if __name__ == "__main__":
    raise SystemExit(main())
