"""Speed and memory of kapture_r2d2_extract relative to the published implementation.

    python benchmarks/extract_speed.py --model r2d2_WASF_N16.pt

Both extract the same rendered 1600x1200 images as whole commands, each in a process of
its own, in turn, several times; start-up, which a command pays once, is measured on a
dataset of one image and taken off for the time of an image.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from measure import Measurement, machine, measure, precisions

from r2d2_kapture.synthetic.dataset import write_room_dataset

HERE = Path(__file__).resolve().parent
DEFAULT_MODEL = HERE.parents[1] / "shared" / "data" / "weights" / "r2d2_WASF_N16.pt"


def main() -> None:
    """Render, run every implementation in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(DEFAULT_MODEL))
    parser.add_argument("--images", type=int, default=4, help="images of the dataset")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=2, default=(1600, 1200))
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        room = write_room_dataset(
            Path(folder),
            mapping_images=options.images,
            query_images=1,
            image_size=tuple(options.size),
        )
        many = commands(options.model, room.mapping)
        one = commands(options.model, room.query)
        runs: dict[str, list[Measurement]] = {name: [] for name in many}
        single: dict[str, list[Measurement]] = {name: [] for name in many}
        for _ in range(options.repeats):
            for name in many:
                runs[name].append(measure(many[name]))
                single[name].append(measure(one[name]))
    print_table(runs, single, options.images)


def commands(model: str, root: Path) -> dict[str, list[str]]:
    """The command line of each implementation."""
    extract = [
        *("-m", "r2d2_kapture.cli.extract", "--kapture-root", str(root)),
        *("--model", model, "--gpu", "-1", "--force", "--keypoints-type", "bench"),
    ]
    baseline = [str(HERE / "baseline.py"), "--kapture-root", str(root)]
    return {
        "published way": [*baseline, "--model", model],
        **{
            f"ours, {precision}": [*extract, "--precision", precision]
            for precision in precisions()
        },
    }


def print_table(
    runs: dict[str, list[Measurement]],
    single: dict[str, list[Measurement]],
    images: int,
) -> None:
    """Medians, their spread, and the ratios to the baseline."""
    print(
        f"{'':14s} {'command':>9s} {'spread':>14s} {'ratio':>6s} "
        f"{'an image':>9s} {'ratio':>6s} {'peak':>9s}"
    )
    whole, each = {}, {}
    for name, measurements in runs.items():
        seconds = [m.seconds for m in measurements]
        whole[name] = statistics.median(seconds)
        startup_and_one = statistics.median(m.seconds for m in single[name])
        each[name] = (whole[name] - startup_and_one) / (images - 1)
        first = next(iter(runs))
        print(
            f"{name:14s} {whole[name]:7.2f} s {min(seconds):6.2f}-{max(seconds):6.2f} "
            f"{whole[first] / whole[name]:6.2f} {each[name]:7.2f} s "
            f"{each[first] / each[name]:6.2f} "
            f"{max(m.peak_gib for m in measurements):5.2f} GiB"
        )


if __name__ == "__main__":
    main()
