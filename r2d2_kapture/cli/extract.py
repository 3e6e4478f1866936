"""kapture_r2d2_extract: local features for every image of a kapture dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.cli.common import (
    EXIT_OK,
    finish,
    make_parser,
    run_command,
)
from r2d2_kapture.cli.extraction_flags import (
    add_exclude_flag,
    add_extraction_flags,
    add_masks_flag,
    add_run_flags,
    make_extractor,
    parse_extraction,
    run_options,
    save_settings,
)
from r2d2_kapture.errors import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    parser = make_parser(
        "kapture_r2d2_extract",
        "Extract local features, of R2D2 by default, from every image of a "
        "kapture dataset, into that dataset or another folder. Run it again to "
        "resume.",
        "kapture_r2d2_extract --kapture-root mapping --model r2d2_v2 --top-k 10000",
    )
    parser.group("inputs").add_argument(
        "--kapture-root",
        type=Path | None,
        metavar="DIR",
        help="folder of a kapture 1.1 dataset",
    )
    parser.group("outputs").add_argument(
        "--output",
        type=Path | None,
        metavar="DIR",
        help="folder for reconstruction/keypoints and descriptors; by default the "
        "dataset",
    )
    add_exclude_flag(parser)
    add_masks_flag(parser)
    add_extraction_flags(parser)
    parser.group("outputs").add_argument(
        "--keypoints-type",
        type=str | None,
        metavar="NAME",
        help="name of the feature type; by default that of the model",
    )
    parser.group("outputs").add_argument(
        "--descriptors-type",
        type=str | None,
        metavar="NAME",
        help="name of the descriptors' type; by default that of the keypoints",
    )
    parser.group("outputs").add_argument(
        "--tar",
        action="store_true",
        help="write keypoints.tar and descriptors.tar instead of one file per image",
    )
    add_run_flags(parser)
    namespace = parse_extraction(parser, arguments)
    if namespace is None:
        return EXIT_OK
    if namespace.kapture_root is None:
        raise ConfigError("--kapture-root: missing, expected a kapture dataset")
    options = run_options(namespace)
    extractor = make_extractor(namespace)
    from r2d2_kapture.stages import extract

    report = extract.run(
        extractor,
        kapture_root=namespace.kapture_root,
        output=namespace.output,
        keypoints_type=namespace.keypoints_type,
        descriptors_type=namespace.descriptors_type,
        tar=namespace.tar,
        exclude=namespace.exclude,
        masks=namespace.masks,
        options=options,
    )
    save_settings(namespace, extractor, report.outputs[0])
    return finish(report)


if __name__ == "__main__":
    raise SystemExit(main())
