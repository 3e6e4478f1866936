"""kapture_r2d2_report: one HTML page of a map, a pipeline's folder, or results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from r2d2_kapture.cli.common import finish, make_parser, run_command
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.types import Report

SOURCES = ("pipeline", "map", "hpatches", "pair_poses", "training")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    parser = make_parser(
        "kapture_r2d2_report",
        "Write one HTML file that shows a map in 3D, how it was made, and the queries "
        "localized in it; or results of benchmarks and training. The file is "
        "self-contained and opens in a browser by double click, without network.",
        "kapture_r2d2_report --pipeline work",
    )
    parser.group("inputs").add_argument(
        "--pipeline",
        type=Path | None,
        metavar="DIR",
        help="output folder of kapture_r2d2_pipeline",
    )
    parser.group("inputs").add_argument(
        "--map",
        type=Path | None,
        metavar="DIR",
        help="a map alone: of kapture_r2d2_map, of kapture_r2d2_colmap --sparse, or "
        "any COLMAP model, binary or text",
    )
    parser.group("inputs").add_argument(
        "--images",
        type=Path | None,
        metavar="DIR",
        help="folder of the images of --map; without it the page shows no photographs",
    )
    parser.group("inputs").add_argument(
        "--hpatches",
        type=Path | None,
        metavar="DIR",
        help="output folder of kapture_r2d2_hpatches",
    )
    parser.group("inputs").add_argument(
        "--pair-poses",
        type=Path | None,
        metavar="DIR",
        help="output folder of kapture_r2d2_pair_poses",
    )
    parser.group("inputs").add_argument(
        "--training",
        type=Path,
        metavar="DIR",
        nargs="+",
        default=[],
        help="output folders of kapture_r2d2_train, one curve each",
    )
    parser.group("outputs").add_argument(
        "--output",
        type=Path | None,
        metavar="FILE",
        help="the HTML file; by default report.html in the first given folder",
    )
    parser.group("outputs").add_argument(
        "--title",
        type=str | None,
        metavar="NAME",
        help="of the page; by default the folder's name",
    )
    namespace = parser.parse_args(arguments)
    given = [name for name in SOURCES if namespace[name]]
    maps = [name for name in given if name in ("pipeline", "map")]
    if not given or (maps and len(given) > 1):
        found = ", ".join(map(_flag, given)) or "none"
        raise ConfigError(
            "expected --pipeline DIR, or --map DIR, or some of --hpatches, "
            f"--pair-poses and --training; found {found}"
        )
    if namespace.images is not None and "map" not in given:
        raise ConfigError(
            "--images: expected only with --map; a pipeline records its " "images"
        )
    return finish(_report(namespace))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _report(namespace: Namespace) -> Report:
    from r2d2_kapture.stages import report

    output, title = namespace.output, namespace.title
    if namespace.pipeline is not None:
        return report.report_pipeline(namespace.pipeline, output=output, title=title)
    if namespace.map is not None:
        return report.report_map(
            namespace.map, images=namespace.images, output=output, title=title
        )
    first = namespace.hpatches or namespace.pair_poses or namespace.training[0]
    return report.report_results(
        output or first / report.PAGE_NAME,
        hpatches=namespace.hpatches,
        pair_poses=namespace.pair_poses,
        training=namespace.training,
        title=title,
    )


if __name__ == "__main__":
    raise SystemExit(main())
