"""Peak memory of a 24-megapixel image at full resolution, scale 0.3 to 1, on the CPU.

python benchmarks/extract_memory.py --model r2d2_WASF_N16.pt
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from extract_speed import DEFAULT_MODEL
from measure import machine, measure, precisions
from PIL import Image

from r2d2_kapture.synthetic.textures import painting


def main() -> None:
    """Make the image, extract it, print time and peak resident memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(DEFAULT_MODEL))
    parser.add_argument("--size", type=int, nargs=2, default=(6000, 4000))
    parser.add_argument("--precision", nargs="+", default=precisions()[::-1])
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.jpg"
        width, height = options.size
        texture = painting(np.random.default_rng(0), (1024, 1024))
        repeats = (-(-height // texture.shape[0]), -(-width // texture.shape[1]), 1)
        pixels = np.tile(texture, repeats)[:height, :width]
        Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(path, quality=95)
        for precision in options.precision:
            result = measure(
                [
                    *("-m", "r2d2_kapture.cli.extract_images", "--images", str(path)),
                    *("--model", options.model, "--gpu", "-1", "--force"),
                    *("--min-size", "0", "--max-size", "99999", "--min-scale", "0.3"),
                    *("--precision", precision, "--top-k", "40000"),
                ]
            )
            print(
                f"{width}x{height} {precision}: {result.seconds:.1f} s, "
                f"peak {result.peak_gib:.2f} GiB"
            )


if __name__ == "__main__":
    main()
