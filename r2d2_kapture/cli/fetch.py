"""kapture_r2d2_fetch: the data of the published training recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.cli.common import EXIT_OK, finish, make_parser, run_command, show
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    parser = make_parser(
        "kapture_r2d2_fetch",
        "Fetch, check and unpack the named sources of training data: W web images, A "
        "Aachen, S style transfer, F optical flow; report what must be downloaded by "
        "hand. An interrupted download resumes when the command is run again.",
        "kapture_r2d2_fetch --data-root data --sources A",
    )
    parser.group("outputs").add_argument(
        "--data-root",
        type=Path | None,
        metavar="DIR",
        help="folder for the sources",
    )
    parser.group("inputs").add_argument(
        "--sources",
        type=str,
        metavar="LETTERS",
        default="WASF",
        help="letters of the sources",
    )
    parser.group("inputs").add_argument(
        "--url",
        type=dict[str, str],
        metavar="YAML",
        default={},
        help="addresses that replace the built-in ones: '{S: https://...}'",
    )
    parser.group("inputs").add_argument(
        "--sha256",
        type=dict[str, str],
        metavar="YAML",
        default={},
        help="checksums of the archives: '{S: 0123...}'; without one, that of the "
        "first download is recorded and later ones are compared with it",
    )
    parser.group("run").add_argument(
        "--keep-archives", action="store_true", help="keep archives after unpacking"
    )
    parser.group("inputs").add_argument(
        "--list", action="store_true", help="list the sources and their licences"
    )
    parser.group("run").add_argument(
        "--force", action="store_true", help="fetch existing sources again"
    )
    parser.group("run").add_argument(
        "--quiet", action="store_true", help="show no progress"
    )
    namespace = parser.parse_args(arguments)
    from r2d2_kapture.stages import fetch

    if namespace.list:
        show("\n".join(fetch.table()))
        return EXIT_OK
    if namespace.data_root is None:
        raise ConfigError("--data-root: none given, expected a folder for the data")
    report = fetch.run(
        data_root=namespace.data_root,
        letters=namespace.sources,
        urls=namespace.url,
        checksums=namespace.sha256,
        keep_archives=namespace.keep_archives,
        options=RunOptions(
            force=namespace.force, progress=False if namespace.quiet else None
        ),
    )
    return finish(report)


if __name__ == "__main__":
    raise SystemExit(main())
