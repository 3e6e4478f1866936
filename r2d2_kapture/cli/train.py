"""kapture_r2d2_train: R2D2, Fast-R2D2 and D2-Net from photographs and other pairs."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import get_type_hints

from jsonargparse import Namespace

from r2d2_kapture.cli.common import (
    EXIT_OK,
    add_settings,
    finish,
    make_parser,
    resolve_presets,
    run_command,
    settings_from,
)
from r2d2_kapture.cli.parser import INPUTS
from r2d2_kapture.cli.signatures import read_signature
from r2d2_kapture.cli.stage_flags import (
    add_parameters,
    add_workers_flag,
    parameter_values,
    require_given,
    run_options,
)
from r2d2_kapture.config.d2net_training import D2NetTrainingConfig
from r2d2_kapture.config.distillation import DistillationConfig
from r2d2_kapture.config.losses import LossConfig
from r2d2_kapture.config.megadepth import MegadepthPairs
from r2d2_kapture.config.train import (
    NetworkConfig,
    OptimizationConfig,
    PaceConfig,
    TrainConfig,
)
from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.config.training_sources import SourceConfig, ValidationConfig
from r2d2_kapture.errors import ConfigError

PRESETS = "train"
SETTINGS = {
    "validation": ValidationConfig,
    "network": NetworkConfig,
    "optimization": OptimizationConfig,
    "length of the run": PaceConfig,
    "pairs of photographs": PairConfig,
    "pairs of MegaDepth": MegadepthPairs,
    "losses of R2D2 and Fast-R2D2": LossConfig,
    "R2D2 and Fast-R2D2 with a teacher": DistillationConfig,
    "D2-Net only": D2NetTrainingConfig,
}
"""Settings by the title of their flags."""
FAMILY_OF: dict[type, str] = {
    LossConfig: "r2d2",
    DistillationConfig: "r2d2",
    D2NetTrainingConfig: "d2net",
}
"""Settings of only one family of networks."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    description, parameters = read_signature("r2d2_kapture.stages.train")
    parser = make_parser(
        "kapture_r2d2_train",
        description,
        "kapture_r2d2_train --config r2d2 --images photos --output run",
    )
    groups = {"network": ["teacher"], "outputs": ["license"]}
    parser.group("network").add_argument(
        "--start-from",
        type=str | None,
        metavar="MODEL",
        help="checkpoint to start from, instead of random weights, or several of one "
        "network, A,B, for their mean; for D2-Net also weights of VGG16",
    )
    add_parameters(parser, parameters, groups, taken=["start_from"], in_files=True)
    add_settings(parser, SourceConfig, group=INPUTS)
    for title, settings in SETTINGS.items():
        add_settings(parser, settings, group=title, topic=FAMILY_OF.get(settings))
    add_workers_flag(
        parser,
        "processes that generate pairs, for each training process; 0 generates them "
        "between the steps",
        2,
    )
    parser.group("run").add_argument(
        "--force",
        action="store_true",
        help="start over; state and logs of the existing run are deleted",
    )
    namespace = parser.parse_args(resolve_presets(arguments, PRESETS))
    config, inputs = _train_config(namespace), settings_from(namespace, SourceConfig)
    require_given(namespace, parameters)
    namespace.start_from = _checkpoints(namespace.start_from)
    validation = settings_from(namespace, ValidationConfig)
    options = run_options(namespace, least=0)
    from r2d2_kapture.stages import train
    from r2d2_kapture.training.distributed import this_process

    report = train.run(
        config,
        inputs=inputs,
        validation=validation,
        **parameter_values(namespace, parameters),
        options=options,
        announce=functools.partial(print, flush=True),
    )
    return finish(report) if this_process().is_main else EXIT_OK


def _train_config(namespace: Namespace) -> TrainConfig:
    parts = get_type_hints(TrainConfig).items()
    return TrainConfig(**{name: settings_from(namespace, kind) for name, kind in parts})


def _checkpoints(text: str | None) -> tuple[str, ...]:
    """Split a list at commas, which the name of a single file may contain."""
    if text is None:
        return ()
    # not Path.exists, which raises on names that are too long
    if os.path.exists(os.path.expanduser(text)):
        return (text,)
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts):
        raise ConfigError(
            f"--start-from {text}: found an empty name between commas, expected one "
            "checkpoint or several, A,B"
        )
    return parts


if __name__ == "__main__":
    raise SystemExit(main())
