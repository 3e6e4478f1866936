"""Share of refinement in the time of a pipeline.

    python benchmarks/refine_speed.py --mapping DATASET --query DATASET

Runs kapture_r2d2_pipeline on the CPU with and without ``--refine off``, from the images
on, and prints wall and processor time, and the seconds of each stage. On a busy machine
the share of processor time is the one to trust.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from measure import Measurement, machine, measure
from refinement import OFF_ON, bar, table

from r2d2_kapture.cli.common import EXIT_OK, run_command, show
from r2d2_kapture.stages.pipeline import REPORT_NAME


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(refine_speed, arguments)


def refine_speed(arguments: list[str]) -> int:
    """Run both, print the table and the bar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mapping", type=Path, required=True)
    parser.add_argument("--query", type=Path, required=True)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--model", default="fast_r2d2_v6")
    options = parser.parse_args(arguments)
    figures = []
    times: list[Measurement] = []
    with tempfile.TemporaryDirectory() as folder:
        for refine in OFF_ON:
            output = Path(folder) / refine
            command = [
                *("-m", "r2d2_kapture.cli.pipeline"),
                *("--mapping", str(options.mapping), "--query", str(options.query)),
                *("--model", options.model, "--preset", options.preset),
                *("--refine", refine, "--output", str(output)),
            ]
            times.append(measure(command))
            figures.append(stage_seconds(output / REPORT_NAME))
    off, on = times
    show(machine())
    show("\n".join(table({"refine": 0.0, **figures[0]}, figures[1])))
    show(f"wall time {off.seconds:.1f} and {on.seconds:.1f} s")
    show(f"processor time {off.cpu_seconds:.1f} and {on.cpu_seconds:.1f} s")
    share = 1 - off.cpu_seconds / on.cpu_seconds
    show(bar("share of refinement in the processor time", share, at_most=0.3))
    return EXIT_OK


def stage_seconds(report: Path) -> dict[str, float]:
    """Seconds of each stage of a pipeline, those of the same name together."""
    seconds: dict[str, float] = {}
    for stage in json.loads(report.read_text(encoding="utf-8"))["stages"]:
        seconds[stage["stage"]] = seconds.get(stage["stage"], 0.0) + stage["seconds"]
    return seconds


if __name__ == "__main__":
    raise SystemExit(main())
