"""How long the commands take to answer, and extraction to its first progress.

    python benchmarks/startup.py

Prints the median wall time and processor time, in seconds, of ``--help``, ``--version``
and a mistyped flag of every command, each in a process of its own, then the wall time
until kapture_r2d2_extract_images shows its progress on one small image.
"""

from __future__ import annotations

import argparse
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

BIN = Path(__file__).resolve().parents[1] / "bin"
ANSWERS = ("--help", "--version", "--no-such-flag")


def answer_seconds(script: Path, typed: str) -> tuple[float, float]:
    """Wall and processor time of one command line that does no work."""
    begin, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, script, typed], capture_output=True, check=False)
    after = os.times()
    processor = sum(after[2:4]) - sum(before[2:4])
    return time.perf_counter() - begin, processor


def first_progress_seconds(folder: Path) -> float:
    """Wall time until a terminal shows the bar of a run on one small image."""
    pixels = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    script = str(BIN / "kapture_r2d2_extract_images")
    command = [sys.executable, script, "--images", str(folder), "--gpu", "-1"]
    command += ["--output-dir", str(folder / "out")]
    terminal, end = pty.openpty()
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=end, stderr=end):
        os.read(terminal, 1)
        return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3, help="runs a figure")
    times: int = parser.parse_args().times
    print(f"{'seconds: wall (processor)':30}", *(f"{typed:>15}" for typed in ANSWERS))
    for script in sorted(BIN.iterdir()):
        figures = []
        for typed in ANSWERS:
            runs = [answer_seconds(script, typed) for _ in range(times)]
            wall, processor = map(statistics.median, zip(*runs))
            figures.append(f"{wall:.2f} ({processor:.2f})")
        print(f"{script.name:30}", *(f"{figure:>15}" for figure in figures))
    with tempfile.TemporaryDirectory() as folder:
        print(f"first line of a run: {first_progress_seconds(Path(folder)):.2f}")


if __name__ == "__main__":
    main()
