"""kapture_r2d2_evaluate: errors of estimated poses relative to true poses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.cli.common import (
    add_settings,
    finish,
    make_parser,
    resolve_presets,
    run_command,
    settings_from,
    show,
)
from r2d2_kapture.cli.parser import INPUTS
from r2d2_kapture.cli.signatures import read_signature
from r2d2_kapture.cli.stage_flags import add_parameters, parameter_values, run_options
from r2d2_kapture.config.evaluate import DEFAULT_THRESHOLDS, EvaluateConfig
from r2d2_kapture.errors import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    description, parameters = read_signature("r2d2_kapture.stages.evaluate")
    parser = make_parser(
        "kapture_r2d2_evaluate",
        description,
        "kapture_r2d2_evaluate --ground-truth query --estimated ours=localized "
        "published=poses.txt --output evaluation --by folder",
    )
    parser.group(INPUTS).add_argument(
        "--estimated",
        type=str,
        metavar="PATH",
        nargs="+",
        required=True,
        help="kapture datasets, or text files of lines 'name qw qx qy qz tx ty tz'; "
        "NAME=PATH gives its name in the table, by default the last part of the path",
    )
    add_parameters(parser, parameters, taken=["replace"])
    parser.group("evaluation").add_argument(
        "--thresholds",
        type=str,
        metavar="M,DEG",
        nargs="+",
        default=[f"{metres:g},{degrees:g}" for metres, degrees in DEFAULT_THRESHOLDS],
        help="pairs METRES,DEGREES: the share of all images within both",
    )
    others = ["by", "align", "text_format"]
    add_settings(parser, EvaluateConfig, ["thresholds", "lists"], group="evaluation")
    add_settings(parser, EvaluateConfig, ["thresholds", *others], group=INPUTS)
    parser.group("run").add_argument(
        "--strict", action="store_true", help="stop at the first that cannot be aligned"
    )
    parser.group("run").add_argument(
        "--force", action="store_true", help="replace the results of another run"
    )
    namespace = parser.parse_args(resolve_presets(arguments))
    namespace.thresholds = list(map(threshold, namespace.thresholds))
    config = settings_from(namespace, EvaluateConfig)
    estimated = named_paths(namespace.estimated)
    from r2d2_kapture.stages import evaluate

    report = evaluate.run(
        config,
        estimated=estimated,
        **parameter_values(namespace, parameters),
        options=run_options(namespace),
    )
    if report.outputs:
        show((namespace.output / evaluate.TABLE_NAME).read_text(encoding="utf-8"))
    details = {k: v for k, v in report.details.items() if k != "estimates"}
    return finish(dataclasses.replace(report, details=details))


def threshold(text: str) -> tuple[float, float]:
    """The metres and degrees in ``0.25,2``.

    Raises:
        ConfigError: not two numbers.
    """
    try:
        metres, degrees = map(float, text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--thresholds {text}: expected METRES,DEGREES, such as 0.25,2"
        ) from error
    return metres, degrees


def named_paths(arguments: Sequence[str]) -> dict[str, Path]:
    """Paths by the name in ``NAME=PATH``, or by their own last part.

    Raises:
        ConfigError: two have the same name.
    """
    paths: dict[str, Path] = {}
    for argument in arguments:
        name, separator, rest = argument.partition("=")
        path = Path(rest)
        if not separator or Path(argument).exists():
            path = Path(argument)
            name = path.stem if path.is_file() else path.resolve().name
        if not name or name in paths:
            raise ConfigError(
                f"--estimated {argument}: found the name '{name}' twice or empty, "
                "expected distinct names; write NAME=PATH"
            )
        paths[name] = path
    return paths


if __name__ == "__main__":
    raise SystemExit(main())
