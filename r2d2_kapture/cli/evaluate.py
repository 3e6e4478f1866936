"""kapture_r2d2_evaluate: errors of estimated poses relative to true poses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.cli.common import (
    finish,
    make_parser,
    resolve_presets,
    run_command,
    show,
)
from r2d2_kapture.cli.parser import value_name
from r2d2_kapture.config.evaluate import (
    DEFAULT_THRESHOLDS,
    EvaluateConfig,
    GroupBy,
    TextFormat,
)
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    parser = make_parser(
        "kapture_r2d2_evaluate",
        "Compare estimated camera poses with the true poses of a kapture dataset: "
        "position and rotation errors, median, mean and the share of images within "
        "thresholds, as a table, JSON, CSV and pictures.",
        "kapture_r2d2_evaluate --ground-truth query --estimated ours=localized "
        "published=poses.txt --output evaluation --by folder",
    )
    parser.group("inputs").add_argument(
        "--ground-truth",
        type=Path,
        metavar="DIR",
        required=True,
        help="folder of a kapture dataset with the true poses",
    )
    parser.group("inputs").add_argument(
        "--estimated",
        type=str,
        metavar="PATH",
        nargs="+",
        required=True,
        help="kapture datasets, or text files of lines 'name qw qx qy qz tx ty tz'; "
        "NAME=PATH gives its name in the table, by default the last part of the path",
    )
    parser.group("outputs").add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        required=True,
        help="folder of results.json, results.txt, per_image.csv, errors.png, plan.png",
    )
    parser.group("evaluation").add_argument(
        "--thresholds",
        type=str,
        metavar="M,DEG",
        nargs="+",
        default=[f"{metres:g},{degrees:g}" for metres, degrees in DEFAULT_THRESHOLDS],
        help="pairs METRES,DEGREES: the share of all images within both",
    )
    parser.group("evaluation").add_argument(
        "--by",
        type=GroupBy,
        metavar=value_name(GroupBy),
        default="none",
        help="figures of groups of images too: folder groups by the first sub-folder "
        "in which image names differ; lists by --lists",
    )
    parser.group("inputs").add_argument(
        "--lists",
        type=Path,
        metavar="FILE",
        nargs="+",
        default=[],
        help="text files with one image name per line; each is a group, named like "
        "the file",
    )
    parser.group("evaluation").add_argument(
        "--align",
        action="store_true",
        help="align the estimate with the true poses by a robustly estimated "
        "similarity transform; for maps made without known poses",
    )
    parser.group("inputs").add_argument(
        "--map",
        type=Path | None,
        metavar="DIR",
        help="map that the images are localized in, drawn in plan.png; with --align it "
        "is aligned like the first estimate",
    )
    parser.group("evaluation").add_argument(
        "--text-format",
        type=TextFormat,
        metavar=value_name(TextFormat),
        default="auto",
        help="how text files name images; auto takes the form that matches most names",
    )
    parser.group("run").add_argument(
        "--strict", action="store_true", help="stop at the first that cannot be aligned"
    )
    parser.group("run").add_argument(
        "--force", action="store_true", help="replace the results of another run"
    )
    namespace = parser.parse_args(resolve_presets(arguments))
    config = EvaluateConfig(
        thresholds=tuple(map(threshold, namespace.thresholds)),
        by=namespace.by,
        lists=tuple(namespace.lists),
        align=namespace.align,
        text_format=namespace.text_format,
    )
    estimated = named_paths(namespace.estimated)
    from r2d2_kapture.stages import evaluate

    report = evaluate.run(
        config,
        ground_truth=namespace.ground_truth,
        estimated=estimated,
        output=namespace.output,
        map_path=namespace.map,
        options=RunOptions(force=namespace.force, strict=namespace.strict),
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
