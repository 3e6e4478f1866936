"""kapture_r2d2_extract: local features for every image of a kapture dataset."""

from __future__ import annotations

from collections.abc import Sequence

from r2d2_kapture.cli.common import finish, make_parser, run_command
from r2d2_kapture.cli.extraction_flags import (
    FOLDER_FLAGS,
    add_extraction_flags,
    add_extraction_run_flags,
    add_folder_flags,
    make_extractor,
    parse_extraction,
    save_settings,
)
from r2d2_kapture.cli.signatures import read_signature
from r2d2_kapture.cli.stage_flags import (
    add_executor_flags,
    add_parameters,
    executor_config,
    parameter_values,
    require_given,
    run_options,
)

OUTPUTS = ["keypoints_type", "descriptors_type", "store", "tar"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    description, parameters = read_signature("r2d2_kapture.stages.extract")
    parser = make_parser(
        "kapture_r2d2_extract",
        description,
        "kapture_r2d2_extract --kapture-root mapping --model r2d2_v3 --top-k 10000",
    )
    groups = {"outputs": OUTPUTS}
    add_parameters(parser, parameters, groups, taken=FOLDER_FLAGS, in_files=True)
    add_folder_flags(parser)
    add_extraction_flags(parser)
    add_extraction_run_flags(parser)
    add_executor_flags(parser)
    namespace = parse_extraction(parser, arguments)
    require_given(namespace, parameters)
    options, executor = run_options(namespace), executor_config(namespace)
    extractor = make_extractor(namespace)
    from r2d2_kapture.stages import extract
    from r2d2_kapture.stages.cluster import open_executor

    values = parameter_values(namespace, parameters)
    with open_executor(executor) as execute:
        report = execute(extract.run, extractor, **values, options=options)
    for output in report.outputs[:1]:  # none of a strict run that workers stopped
        if output.is_dir():  # a slice has a report alone
            save_settings(namespace, extractor, output)
    return finish(report)


if __name__ == "__main__":
    raise SystemExit(main())
