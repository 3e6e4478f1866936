"""kapture_r2d2_hpatches: matching accuracy on homography sequences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from r2d2_kapture.cli.common import (
    EXIT_OK,
    add_settings,
    finish,
    make_parser,
    run_command,
    settings_from,
    show,
)
from r2d2_kapture.cli.evaluation_flags import (
    add_evaluation_flags,
    extracted_sources,
    reads_files,
    save_all_settings,
    stored_source,
    with_results,
)
from r2d2_kapture.cli.extraction_flags import parse_extraction, run_options
from r2d2_kapture.cli.parser import CommandParser
from r2d2_kapture.config.hpatches import HomographyConfig
from r2d2_kapture.errors import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    parser = _parser()
    namespace = parse_extraction(parser, arguments)
    if namespace is None:
        return EXIT_OK
    config, options = settings_from(namespace, HomographyConfig), run_options(namespace)
    if namespace.root is None and not namespace.results:
        raise ConfigError(
            "found neither --root (a folder of sequences to evaluate) nor --results "
            "(files to show); give one of them"
        )
    if namespace.root is not None and namespace.output is None:
        raise ConfigError("--output: missing, expected a folder for the results")
    stored = namespace.root is not None and reads_files(namespace)
    from r2d2_kapture.stages.benchmark import hpatches, hpatches_tables

    if namespace.plot is not None:
        hpatches_tables.check_plot_path(namespace.plot)
    if namespace.results:
        # report errors in them before the work
        hpatches_tables.read_results(namespace.results)
    if namespace.root is None:
        _show(namespace, namespace.results)
        return EXIT_OK
    extracted = [] if stored else extracted_sources(parser, arguments, namespace)
    report = hpatches.run(
        config,
        root=namespace.root,
        output=namespace.output,
        sources=(
            [stored_source(namespace, namespace.root)]
            if stored
            else [source for source, _ in extracted]
        ),
        options=options,
    )
    save_all_settings(extracted, namespace.output)
    if report.outputs:
        _show(namespace, with_results(report.outputs, namespace.results))
    else:
        hpatches_tables.remove_tables(namespace.output)
    return finish(report)


def _parser() -> CommandParser:
    parser = make_parser(
        "kapture_r2d2_hpatches",
        "Evaluate local features on homography sequences in the layout of HPatches, "
        "with the protocol of D2-Net and R2D2: matching accuracy, repeatability, "
        "matching score, homography accuracy. Run it again to resume.",
        "kapture_r2d2_hpatches --root hpatches-sequences-release --model r2d2_v2 "
        "--output DIR",
    )
    parser.group("inputs").add_argument(
        "--root",
        type=Path | None,
        metavar="DIR",
        help="folder with sequences at any depth: images 1 to n and files H_1_2 to "
        "H_1_n in folders i_... and v_...",
    )
    parser.group("outputs").add_argument(
        "--output",
        type=Path | None,
        metavar="DIR",
        help="folder of results, tables and pictures",
    )
    parser.group("inputs").add_argument(
        "--results",
        nargs="+",
        type=Path,
        metavar="FILE",
        default=[],
        help="results of other runs (.npz) or published caches (.npy), shown for "
        "comparison; without --root only these are shown",
    )
    parser.group("outputs").add_argument(
        "--plot",
        type=Path | None,
        metavar="FILE",
        help="picture of the accuracy (.png, .pdf, .svg); mma.png in --output by "
        "default",
    )
    add_settings(parser, HomographyConfig, group="evaluation")
    add_evaluation_flags(parser, "sequence")
    return parser


def _show(namespace: Namespace, results: Sequence[Path]) -> None:
    """Print the table, and write tables and plot if requested."""
    from r2d2_kapture.stages.benchmark import hpatches_tables

    runs = hpatches_tables.read_results(results)
    if namespace.output is not None:
        hpatches_tables.write_tables(namespace.output, runs)
    plot = namespace.plot
    if plot is None and namespace.output is not None:
        plot = namespace.output / hpatches_tables.PLOT_NAME
    if plot is not None:
        hpatches_tables.plot(runs, plot)
    show(hpatches_tables.summary_table(runs))


if __name__ == "__main__":
    raise SystemExit(main())
