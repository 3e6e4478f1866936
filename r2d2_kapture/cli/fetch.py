"""kapture_r2d2_fetch: the data of the published training recipe."""

from __future__ import annotations

from collections.abc import Sequence

from r2d2_kapture.cli.common import EXIT_OK, finish, make_parser, run_command, show
from r2d2_kapture.cli.parser import INPUTS
from r2d2_kapture.cli.signatures import read_signature
from r2d2_kapture.cli.stage_flags import (
    add_parameters,
    add_run_flags,
    parameter_values,
    require_given,
    run_options,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    description, parameters = read_signature("r2d2_kapture.stages.fetch")
    parser = make_parser(
        "kapture_r2d2_fetch",
        description,
        "kapture_r2d2_fetch --data-root data --sources A",
    )
    add_parameters(
        parser,
        parameters,
        groups={"outputs": ["data_root"]},
        metavars={"sources": "LETTERS", "url": "YAML", "sha256": "YAML"},
        in_files=True,
    )
    parser.group(INPUTS).add_argument(
        "--list", action="store_true", help="list the sources and their licences"
    )
    add_run_flags(parser, force="fetch existing sources again")
    namespace = parser.parse_args(arguments)
    from r2d2_kapture.stages import fetch

    if namespace.list:
        show("\n".join(fetch.table()))
        return EXIT_OK
    require_given(namespace, parameters)
    values = parameter_values(namespace, parameters)
    return finish(fetch.run(**values, options=run_options(namespace)))


if __name__ == "__main__":
    raise SystemExit(main())
