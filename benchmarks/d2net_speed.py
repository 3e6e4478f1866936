"""Speed and memory of D2-Net's extraction against the straightforward way.

    python benchmarks/d2net_speed.py --model d2_tf.pth --multiscale

Both extract the same images as whole commands, each in a process of its own, in turn,
several times; start-up is measured on a tiny image and taken off. Without --model the
weights are random, which takes the same time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from measure import Measurement, machine, measure, precisions
from PIL import Image

from r2d2_kapture.models.d2net import D2Net
from r2d2_kapture.synthetic.textures import painting

HERE = Path(__file__).resolve().parent
PLAIN = "plain"


def main() -> None:
    """Make images, run both implementations in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--multiscale", action="store_true")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=2, default=(1600, 1200))
    parser.add_argument("--ways", nargs="+", default=[PLAIN, *precisions()])
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = options.model or random_weights(root / "random.pth")
        flags = ["--multiscale"] if options.multiscale else []
        lists = {
            "images": write_images(root / "images", options.images, options.size),
            "tiny": write_images(root / "tiny", 1, (32, 32)),
        }
        runs: dict[str, dict[str, list[Measurement]]] = {
            way: {name: [] for name in lists} for way in options.ways
        }
        for _ in range(options.repeats):
            for way in options.ways:
                for name, listed in lists.items():
                    command = command_of(way, model, listed, root / f"{way}_{name}")
                    runs[way][name].append(measure([*command, *flags]))
    print_table(runs, options.images)


def random_weights(path: Path) -> str:
    """Write a checkpoint of D2-Net's layout with weights of sensible size."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, value in D2Net().state_dict().items():
        size = (2 / value[0].numel()) ** 0.5 if value.ndim > 1 else 0.05
        layer = name.removeprefix("ops.")
        tensors[f"dense_feature_extraction.model.{layer}"] = size * torch.randn(
            value.shape, generator=generator
        )
    torch.save({"model": tensors}, path)
    return str(path)


def write_images(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Write synthetic images, and a list of them."""
    folder.mkdir()
    width, height = size
    names = []
    for seed in range(count):
        texture = painting(np.random.default_rng(seed), (512, 512))
        repeats = (-(-height // texture.shape[0]), -(-width // texture.shape[1]), 1)
        pixels = np.rint(np.tile(texture, repeats)[:height, :width] * 255)
        names.append(str(folder / f"{seed}.png"))
        Image.fromarray(pixels.astype(np.uint8)).save(names[-1])
    listed = folder / "list.txt"
    listed.write_text("\n".join(names), encoding="utf-8")
    return listed


def command_of(way: str, model: str, listed: Path, output: Path) -> list[str]:
    """The command line of an implementation."""
    common = ["--images", str(listed), "--model", model, "--output-dir", str(output)]
    if way == PLAIN:
        return [str(HERE / "d2net_baseline.py"), *common]
    ours = ["-m", "r2d2_kapture.cli.extract_images", *common]
    return [*ours, "--gpu", "-1", "--force", "--precision", way]


def print_table(runs: dict[str, dict[str, list[Measurement]]], images: int) -> None:
    """Print wall and processor seconds per image, their ratios, and peak memory."""
    print(
        f"{'':6s} {'clock':>9s} {'ratio':>6s} {'cores':>9s} {'ratio':>6s} {'peak':>9s}"
    )
    first: tuple[float, float] | None = None
    for way, measured in runs.items():
        clock, cores = (
            (
                statistics.median(getattr(m, field) for m in measured["images"])
                - statistics.median(getattr(m, field) for m in measured["tiny"])
            )
            / images
            for field in ("seconds", "cpu_seconds")
        )
        first = first or (clock, cores)
        peak = max(m.peak_gib for m in measured["images"])
        print(
            f"{way:6s} {clock:7.2f} s {first[0] / clock:6.2f} {cores:7.2f} s "
            f"{first[1] / cores:6.2f} {peak:5.2f} GiB"
        )


if __name__ == "__main__":
    main()
