"""Speed and memory of kapture_r2d2_extract relative to the published implementation.

    python benchmarks/extract_speed.py
    python benchmarks/extract_speed.py --isa avx2 --ways published openvino

All extract the same rendered 1600x1200 images as whole commands, each in a process of
its own, in turn, several times; start-up, which a command pays once, is measured on a
dataset of one image and taken off for the time of an image. The engines that are not
installed are left out. What int8 calibrates once for a checkpoint is not counted.

``--isa`` makes an older processor of a newer one, for the published way too: ``avx2``
that of the years from 2013, ``avx2_vnni`` one with products of int8 (from 2021).
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from measure import LIMITS, Measurement, engines, machine, measure

from r2d2_kapture.config.extract import DEFAULT_MODEL as FAST_MODEL
from r2d2_kapture.core.processor import this_processor
from r2d2_kapture.synthetic.dataset import write_room_dataset

HERE = Path(__file__).resolve().parent
PUBLISHED = HERE.parents[1] / "shared" / "data" / "weights" / "r2d2_WASF_N16.pt"
DEFAULT_MODEL = PUBLISHED if PUBLISHED.is_file() else Path("r2d2_v2")


@dataclass(frozen=True, kw_only=True)
class Way:
    """One line of the table.

    Attributes:
        name: of the line.
        script: arguments of Python without those of the dataset.
        calibrates: whether the first run with a checkpoint does more than the next.
    """

    name: str
    script: tuple[str, ...]
    calibrates: bool = False

    def command(self, root: Path) -> list[str]:
        """The command line on a dataset."""
        return [*self.script, "--kapture-root", str(root)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Render, run every way in turn, print the table."""
    options = parse(arguments)
    os.environ.update(LIMITS.get(options.isa, {}))
    print(machine())
    ways = [
        way
        for way in all_ways(options.model, options.fast_model, bound=bool(options.isa))
        if not options.ways or any(re.search(part, way.name) for part in options.ways)
    ]
    with tempfile.TemporaryDirectory() as folder:
        room = write_room_dataset(
            Path(folder),
            mapping_images=options.images,
            query_images=1,
            image_size=tuple(options.size),
        )
        for way in ways:
            if way.calibrates:
                measure(way.command(room.query))
        many: dict[str, list[Measurement]] = {way.name: [] for way in ways}
        one: dict[str, list[Measurement]] = {way.name: [] for way in ways}
        for _ in range(options.repeats):
            for way in ways:
                many[way.name].append(measure(way.command(room.mapping)))
                one[way.name].append(measure(way.command(room.query)))
    print_table(many, one, options.images)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(DEFAULT_MODEL), help="R2D2")
    parser.add_argument("--fast-model", default=FAST_MODEL, help="Fast-R2D2")
    parser.add_argument("--images", type=int, default=4, help="images of the dataset")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=2, default=(1600, 1200))
    parser.add_argument("--ways", nargs="+", help="regular expressions of lines to run")
    parser.add_argument(
        "--isa", choices=LIMITS, default="", help="instruction set of all engines"
    )
    return parser.parse_args(arguments)


def all_ways(model: str, fast: str, bound: bool) -> Iterator[Way]:
    """Every way that runs here, the published one first.

    Args:
        model, fast: checkpoints of R2D2 and Fast-R2D2.
        bound: only engines that a limit of the instruction set binds.
    """
    baseline = (str(HERE / "baseline.py"), "--model", model)
    yield Way(name="published way", script=baseline)
    cpu = this_processor()
    arithmetics = {"torch": ["fp32", "bf16"] if cpu.has_bf16 else ["fp32"]}
    for engine in engines(bound):
        arithmetics[engine] = ["fp32", "int8"]
    networks: Mapping[str, tuple[str, ...]] = {
        "R2D2": (model,),
        "Fast-R2D2": (fast,),
        "Fast-R2D2, preset fast": (fast, "--preset", "fast"),
    }
    for title, flags in networks.items():
        for engine, precisions in arithmetics.items():
            for precision in precisions:
                yield Way(
                    name=f"{title}: {engine}, {precision}",
                    script=(
                        *("-m", "r2d2_kapture.cli.extract", "--gpu", "-1", "--force"),
                        *("--keypoints-type", "bench", "--model", *flags),
                        *("--engine", engine, "--precision", precision),
                    ),
                    calibrates=precision == "int8",
                )


def print_table(
    many: Mapping[str, list[Measurement]],
    one: Mapping[str, list[Measurement]],
    images: int,
) -> None:
    """Medians, their spread, and the ratios to the first line."""
    width = max(map(len, many), default=0)
    print(
        f"{'':{width}s} {'command':>9s} {'spread':>14s} {'ratio':>6s} "
        f"{'start-up':>9s} {'an image':>9s} {'ratio':>6s} {'peak':>9s}"
    )
    first: tuple[float, float] | None = None
    for name, runs in many.items():
        seconds = [run.seconds for run in runs]
        whole = statistics.median(seconds)
        startup_and_one = statistics.median(run.seconds for run in one[name])
        each = (whole - startup_and_one) / (images - 1)
        first = first or (whole, each)
        print(
            f"{name:{width}s} {whole:7.2f} s {min(seconds):6.2f}-{max(seconds):6.2f} "
            f"{first[0] / whole:6.2f} {startup_and_one - each:7.2f} s {each:7.2f} s "
            f"{first[1] / each:6.2f} {max(run.peak_gib for run in runs):5.2f} GiB"
        )


if __name__ == "__main__":
    main()
