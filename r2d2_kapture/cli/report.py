"""kapture_r2d2_report: one HTML page of a map, a pipeline's folder, or results."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import Namespace

from r2d2_kapture.cli.common import finish, make_parser, run_command
from r2d2_kapture.cli.signatures import read_signature
from r2d2_kapture.cli.stage_flags import add_parameters, parameter_values
from r2d2_kapture.errors import ConfigError

SOURCES = ("pipeline", "map", "hpatches", "pair_poses", "training")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    description, parameters = read_signature("r2d2_kapture.stages.report")
    parser = make_parser(
        "kapture_r2d2_report", description, "kapture_r2d2_report --pipeline work"
    )
    add_parameters(parser, parameters, groups={"outputs": ["title"]})
    namespace = parser.parse_args(arguments)
    _check(namespace)
    from r2d2_kapture.stages import report

    return finish(report.run(**parameter_values(namespace, parameters)))


def _check(namespace: Namespace) -> None:
    """Refuse sources that do not go together.

    Raises:
        ConfigError: naming them.
    """
    given = [name for name in SOURCES if namespace[name]]
    maps = [name for name in given if name in ("pipeline", "map")]
    if not given or (maps and len(given) > 1):
        found = ", ".join(f"--{name.replace('_', '-')}" for name in given) or "none"
        raise ConfigError(
            "expected --pipeline DIR, or --map DIR, or some of --hpatches, "
            f"--pair-poses and --training; found {found}"
        )
    if namespace.images is not None and "map" not in given:
        raise ConfigError(
            "--images: expected only with --map; a pipeline records its images"
        )


if __name__ == "__main__":
    raise SystemExit(main())
